//! `eval vqa`: answers to a set's questions, written and scored.

use std::path::PathBuf;

use blip2_dataset::text::{MAX_CAPTION_WORDS, clean_question};
use blip2_evaluation::answer_files::questions::{Form, Question};
use blip2_evaluation::answers::Measure;
use blip2_evaluation::job::Phase;
use blip2_evaluation::metrics::vqa::Mode;
use blip2_evaluation::result_files;
use blip2_evaluation::sets::item::ItemSet;
use blip2_evaluation::sets::questioned;
use blip2_evaluation::writing::{WrittenText, from_lines};
use blip2_run::exit::Exit;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::checkpoint;
use super::model::{AnsweringModel, answers_questions};
use super::read_ahead::ReadAhead;
use super::score::ModeArgument;
use super::score::answers::AnswerReferences;
use super::score::references::References as _;
use super::set::{Evaluation, MAX_PIXELS, Pictured, SetArguments, for_workers};
use super::units::Session;
use super::writing::{WritingArguments, written_unit};
use crate::error::CliError;

#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct VqaArguments {
    #[command(flatten)]
    pub(super) set: SetArguments,
    /// The questions' texts, where `--data` has the answers of people alone: VQA's file of questions.
    #[arg(long, value_name = "F", help_heading = None::<&str>)]
    questions: Option<PathBuf>,
    /// Whose file of questions `--data` is.
    #[arg(long, value_enum, default_value_t = FormArgument::Vqa, help_heading = None::<&str>)]
    form: FormArgument,
    #[command(flatten)]
    writing: WritingArguments,
    /// Whose accuracy is computed [default: official; exact where no question has more than one answer].
    #[arg(long, value_enum, help_heading = "Scores")]
    #[serde(skip)]
    mode: Option<ModeArgument>,
}

/// Whose file of questions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FormArgument {
    /// VQAv2's or OK-VQA's, or LAVIS's list.
    Vqa,
    /// GQA's, or LAVIS's list.
    Gqa,
    /// A-OKVQA's direct answers.
    Aokvqa,
}

/// What it is called.
pub(super) const TASK: &str = "vqa";
/// Where units' answers are.
const ANSWERS: Phase = Phase { folder: "answers", ending: "jsonl" };
/// The answers of all units, in VQA's form.
const RESULTS: &str = "results.json";

/// Answers questions and scores the answers.
pub(super) async fn run(arguments: VqaArguments) -> Result<Exit, CliError> {
    match is_of_checkpoint(&arguments.set, arguments.questions.is_some()).await? {
        true => checkpoint::vqa(&arguments.set).await,
        false => evaluate(arguments, Session::own()?).await,
    }
}

/// Answers questions, or this process's part of them, and scores the answers.
pub(super) async fn evaluate(arguments: VqaArguments, session: Session) -> Result<Exit, CliError> {
    let typed = for_workers(&arguments);
    let VqaArguments { set: of, questions, form, writing, mode } = arguments;
    let model = AnsweringModel::open(&of.model).await?;
    let form_of = match form {
        FormArgument::Vqa => Form::Vqa,
        FormArgument::Gqa => Form::Gqa,
        FormArgument::Aokvqa => Form::AOkVqa,
    };
    let (texts, images) = (questions.as_deref(), of.images.as_deref());
    let columns = of.columns.names()?;
    let mut set = questioned::read(&of.data, form_of, texts, images, &columns, MAX_PIXELS).await?;
    let digest = model.digest().to_owned();
    let writer = writing.answering(model, &of).await?;
    let (settings, mut notes) = (writer.settings.clone(), writer.notes.clone());
    let evaluation = Evaluation {
        task: TASK,
        arguments: typed,
        model: &digest,
        set: (set.digest(), set.items.len()),
        settings,
        phases: &[ANSWERS],
    };
    let begun = of.begin(session, evaluation).await?;
    let mut kept = begun.computes().then_some(writer);
    let mut ahead = ReadAhead::default();
    let ended = begun.work(0, async |unit| {
        let asked = |Question { id, text, .. }: &Question| {
            (id.clone(), clean_question(text.as_deref().unwrap_or_default(), MAX_CAPTION_WORDS))
        };
        let asked = set.items[unit.items.clone()].iter().map(|item| asked(&item.row)).collect();
        ahead.compute(&mut set, unit, async |images| written_unit(&mut kept, images, asked).await).await
    });
    if let Some(exit) = ended.await? {
        return Ok(exit);
    }
    let rows: Vec<WrittenText> = begun.job().results(ANSWERS, from_lines).await?;
    let answers: Vec<String> = rows.iter().map(|row| row.text.trim().to_lowercase()).collect();
    let results = rows.iter().zip(&answers).map(|(row, answer)| (&row.key, answer.as_str()));
    begun.keep(RESULTS, &result_files::answers(results)).await?;
    let questions: Vec<Question> = set.items.iter().map(|item| item.row.clone()).collect();
    let unanswered = questions.iter().filter(|question| question.answers.is_empty()).count();
    if unanswered > 0 {
        let all = questions.len();
        eprintln!("{all} answers are written; {unanswered} questions have none to compare them with");
        return Ok(Exit::Done);
    }
    begun.keep("references.json", &result_files::answer_references(questions.iter())).await?;
    let mode = mode.unwrap_or_else(|| default_mode(&set));
    let (measure, named) = match form {
        FormArgument::Vqa => (Measure::Accuracy(mode.mode()), Some(super::score::typed(mode))),
        FormArgument::Gqa => (Measure::Gqa, None),
        FormArgument::Aokvqa => (Measure::Direct, None),
    };
    let references = AnswerReferences::of(questions, measure);
    let judged = references.judged(&answers);
    if measure == Measure::Accuracy(Mode::Exact) {
        notes.push("right or wrong: the answer is one of the given ones".to_owned());
    }
    notes.extend(references.notes());
    let items = (0..set.items.len()).collect();
    let pictured = Pictured { set: &mut set, items, results: RESULTS };
    of.show(&begun, ("vqa", named), notes, judged, pictured).await
}

/// Whether what is asked for is what the task itself measures of a run's checkpoint.
async fn is_of_checkpoint(of: &SetArguments, has_texts_apart: bool) -> Result<bool, CliError> {
    let endings = [".json", ".csv", ".tsv", ".jsonl"];
    let has_form = of.data.iter().any(|data| endings.iter().any(|ending| data.ends_with(ending)));
    if has_texts_apart || has_form || of.shown.report.is_some() || of.images.is_some() {
        return Ok(false);
    }
    Ok(of.is_of_checkpoint().await? && answers_questions(&of.model).await?)
}

/// Where nobody is left to agree with, answers are right or wrong.
fn default_mode(set: &ItemSet<Question>) -> ModeArgument {
    match set.items.iter().all(|item| item.row.answers.len() == 1) {
        true => ModeArgument::Exact,
        false => ModeArgument::Official,
    }
}
