//! `eval score`: scores of results that are already there, whoever's model wrote them.

pub(super) mod answers;
pub(super) mod captions;
pub(super) mod page;
pub(super) mod references;
pub(super) mod retrieval;
pub(super) mod summary;

use std::path::PathBuf;

use blip2_dataset::corpus::columns::ColumnNames;
use blip2_evaluation::answers::Measure;
use blip2_evaluation::metrics::bootstrap::Draws;
use blip2_evaluation::metrics::vqa::Mode;
use blip2_evaluation::sets::own_references;
use blip2_evaluation::similarity_files::pairs::Pairs;
use blip2_run::exit::Exit;
use clap::{Args, ValueEnum};

use super::columns::SetColumns;
use crate::commands::{print_json, print_text};
use crate::error::CliError;
use crate::report::write_page;
use crate::typed_numbers;
use answers::AnswerReferences;
use captions::{CaptionReferences, CaptionScorer, Tokenizer};
use references::References;
use retrieval::RetrievalReferences;
use summary::{Files, Summary};

#[derive(Debug, Args)]
pub(crate) struct ScoreArguments {
    /// What the results are of.
    #[arg(long, value_enum)]
    task: TaskArgument,
    /// What a model wrote or found: JSON, or similarities as .npy or .safetensors.
    #[arg(long, value_name = "F")]
    results: PathBuf,
    /// What is right, in the data set's own form or in LAVIS's (JSON), in a table of your own (`.csv`,
    /// `.tsv`, `.jsonl`) or in a Parquet file.
    #[arg(long, value_name = "F")]
    references: PathBuf,
    #[command(flatten)]
    columns: SetColumns,
    /// The questions' texts, for the page: VQA's file of questions (vqa, okvqa).
    #[arg(long, value_name = "F")]
    questions: Option<PathBuf>,
    /// Whose accuracy is computed [default: official] (vqa, okvqa).
    #[arg(long, value_enum)]
    mode: Option<ModeArgument>,
    /// Answers as a lemmatiser leaves them, `{"two dogs": "two dog"}` (okvqa).
    #[arg(long, value_name = "F")]
    lemmas: Option<PathBuf>,
    /// What makes words of captions [default: ptb]: `ptb`, the native tokenizer, or `java:FOLDER`, with the
    /// toolkit's jar (caption).
    #[arg(long, value_name = "TOKENIZER", value_parser = Tokenizer::parse)]
    tokenizer: Option<Tokenizer>,
    /// Run METEOR, with the jar in this folder (caption).
    #[arg(long, value_name = "FOLDER")]
    meteor: Option<PathBuf>,
    /// Run SPICE, with the jar in this folder (caption).
    #[arg(long, value_name = "FOLDER")]
    spice: Option<PathBuf>,
    /// Results of another model on the same references: differences on the same draws.
    #[arg(long, value_name = "F")]
    against: Option<PathBuf>,
    /// Draws of images for intervals; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = typed_numbers::draws)]
    bootstrap: usize,
    /// Seed of the draws.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Print the scores as a JSON line.
    #[arg(long)]
    json: bool,
    /// Write a page with the worst cases first (HTML).
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What results are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TaskArgument {
    /// Answers to VQAv2's questions, or to any in its form.
    Vqa,
    /// Answers to GQA's questions.
    Gqa,
    /// Direct answers to A-OKVQA's questions.
    Aokvqa,
    /// Answers to OK-VQA's questions.
    Okvqa,
    /// Captions in COCO's form, or by Karpathy's splits.
    Caption,
    /// Similarities of images and texts.
    Retrieval,
}

/// Whose accuracy is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeArgument {
    /// The data set's own evaluator.
    Official,
    /// LAVIS's: answers of people only lose their marks.
    Lavis,
    /// EvalAI's server, as MMF and lmms-eval have it.
    Evalai,
    /// Right or wrong, for questions with one answer.
    Exact,
}

impl ModeArgument {
    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Official => Mode::Official,
            Self::Lavis => Mode::Lavis,
            Self::Evalai => Mode::EvalAi,
            Self::Exact => Mode::Exact,
        }
    }
}

/// The name of an argument's value, as it is typed.
pub(super) fn typed(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The images of a file of one's own with their texts.
async fn own_pairs(source: &str, columns: &ColumnNames) -> Result<Pairs, CliError> {
    let images = own_references::captions(source, columns).await?;
    let named = images.into_iter().map(|image| (image.id.to_string(), image.captions)).collect();
    Pairs::of_captions(named).map_err(CliError::BadInput)
}

/// Scores the results.
pub(super) async fn run(arguments: &ScoreArguments) -> Result<Exit, CliError> {
    let references = arguments.references().await?;
    let results = references.judge(&arguments.results)?;
    let against = arguments.against.as_deref().map(|path| references.judge(path)).transpose()?;
    let draws = Draws { count: arguments.bootstrap, seed: arguments.seed };
    let files = Files {
        task: typed(arguments.task),
        mode: arguments.mode().map(typed),
        results: arguments.results.display().to_string(),
        references: arguments.references.display().to_string(),
        against: arguments.against.as_ref().map(|path| path.display().to_string()),
    };
    let summary = Summary::new(files, references.notes(), draws, &results, against.as_ref())?;
    if let Some(path) = &arguments.report {
        write_page(&page::render(&summary, &results, against.as_ref()), path)?;
    }
    match arguments.json {
        true => print_json(&summary)?,
        false => print_text(&summary.table())?,
    }
    Ok(Exit::Done)
}

impl ScoreArguments {
    /// The mode of a task that has modes.
    fn mode(&self) -> Option<ModeArgument> {
        let has_modes = matches!(self.task, TaskArgument::Vqa | TaskArgument::Okvqa);
        has_modes.then(|| self.mode.unwrap_or(ModeArgument::Official))
    }

    async fn references(&self) -> Result<Box<dyn References>, CliError> {
        self.check_flags()?;
        let named = self.references.to_string_lossy();
        let own = Some(named.as_ref()).filter(|named| own_references::is_own(named));
        if own.is_none() && self.columns.are_named() {
            let reason = "--column names those of a table or a Parquet file, which --references is not";
            return Err(CliError::usage(reason));
        }
        let columns = self.columns.names()?;
        let measure = match self.task {
            TaskArgument::Retrieval => {
                return Ok(Box::new(match own {
                    Some(own) => RetrievalReferences::Read(own_pairs(own, &columns).await?),
                    None => RetrievalReferences::File(self.references.clone()),
                }));
            }
            TaskArgument::Caption => {
                let tokenizer = self.tokenizer.clone().unwrap_or(Tokenizer::Native);
                let (meteor, spice) = (self.meteor.clone(), self.spice.clone());
                let scorer = CaptionScorer { tokenizer, meteor, spice };
                return Ok(Box::new(match own {
                    Some(own) => {
                        let images = own_references::captions(own, &columns).await?;
                        CaptionReferences::of(&self.references, images, scorer)
                    }
                    None => CaptionReferences::read(&self.references, scorer)?,
                }));
            }
            TaskArgument::Gqa => Measure::Gqa,
            TaskArgument::Aokvqa => Measure::Direct,
            TaskArgument::Vqa | TaskArgument::Okvqa => {
                Measure::Accuracy(self.mode().map(ModeArgument::mode).unwrap_or_default())
            }
        };
        let mut references = match own {
            Some(own) => AnswerReferences::of(own_references::questions(own, &columns).await?, measure),
            None => AnswerReferences::read(&self.references, self.questions.as_deref(), measure)?,
        };
        if self.task == TaskArgument::Okvqa {
            references = references.lemmatised(self.lemmas.clone());
        }
        Ok(Box::new(references))
    }

    /// Every flag belongs to the task.
    fn check_flags(&self) -> Result<(), CliError> {
        use TaskArgument::{Caption, Okvqa, Vqa};
        let flags: [(&str, bool, &[TaskArgument]); 6] = [
            ("--questions", self.questions.is_some(), &[Vqa, Okvqa]),
            ("--mode", self.mode.is_some(), &[Vqa, Okvqa]),
            ("--lemmas", self.lemmas.is_some(), &[Okvqa]),
            ("--tokenizer", self.tokenizer.is_some(), &[Caption]),
            ("--meteor", self.meteor.is_some(), &[Caption]),
            ("--spice", self.spice.is_some(), &[Caption]),
        ];
        for (flag, is_typed, tasks) in flags {
            if is_typed && !tasks.contains(&self.task) {
                let tasks: Vec<String> = tasks.iter().map(|task| typed(*task)).collect();
                let (task, tasks) = (typed(self.task), tasks.join(" or "));
                return Err(CliError::usage(format!("{flag} is of --task {tasks}, not of --task {task}")));
            }
        }
        Ok(())
    }
}
