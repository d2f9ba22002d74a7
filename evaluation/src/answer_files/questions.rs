//! Questions with the answers of people: VQA's annotations, LAVIS's lists, GQA's objects, A-OKVQA's lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::entries::{Entries, Several};
use super::parse::{Opening, opening, parse};
use crate::file_error::{FileError, Result};
use crate::metrics::vqa::HumanAnswer;
use crate::row_id::RowId;

/// A question and what people answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its id.
    pub id: RowId,
    /// The image it is on; the question's own id where the file names none.
    pub image: RowId,
    /// The image's file, where the file of questions names it.
    pub file: Option<String>,
    /// The question itself, where the file has it.
    pub text: Option<String>,
    /// Its types, as kind and name: `answer type`, `number`.
    pub types: Vec<(&'static str, String)>,
    /// One at least, but where only questions were read ([`read_asked`]).
    pub answers: Vec<HumanAnswer>,
}

/// Whose file of references it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"annotations": [{question_id, image_id, question_type, answer_type, answers: [{answer, …}]}]}`, or
    /// LAVIS's list of `{question_id, question, answer, image}` with one answer or a list of them.
    Vqa,
    /// `{id: {imageId, question, answer, types}}`, or LAVIS's list of
    /// `{question_id, question, answer, image}`.
    Gqa,
    /// A list of `{question_id, image_id, question, direct_answers}`.
    AOkVqa,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: RowId,
    image_id: Option<RowId>,
    question_type: Option<String>,
    answer_type: Option<String>,
    answers: Several<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    answer: String,
    answer_confidence: Option<RowId>,
    answer_id: Option<RowId>,
}

impl From<String> for Answer {
    fn from(answer: String) -> Self {
        Self { answer, answer_confidence: None, answer_id: None }
    }
}

/// A row of LAVIS's lists and of A-OKVQA.
#[derive(Deserialize)]
struct Row {
    question_id: RowId,
    question: Option<String>,
    image: Option<RowId>,
    image_id: Option<RowId>,
    answer: Option<Several<String>>,
    direct_answers: Option<Several<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GqaQuestion {
    image_id: Option<RowId>,
    question: Option<String>,
    answer: Option<String>,
    #[serde(default)]
    types: GqaTypes,
}

#[derive(Default, Deserialize)]
struct GqaTypes {
    structural: Option<String>,
    semantic: Option<String>,
}

#[derive(Deserialize)]
struct QuestionTexts {
    questions: Vec<QuestionText>,
}

#[derive(Deserialize)]
struct QuestionText {
    question_id: RowId,
    image_id: Option<RowId>,
    question: String,
}

/// The questions of a file, in its order.
///
/// # Errors
/// A file that cannot be read or is of another form, an id that is there twice, a question without an answer,
/// and a file without questions.
pub fn read(path: &Path, form: Form) -> Result<Vec<Question>> {
    let questions: Vec<Question> = match (form, opening(path)?) {
        (Form::Vqa, Opening::Object) => {
            parse::<Annotations>(path)?.annotations.into_iter().map(Question::from).collect()
        }
        (Form::Gqa, Opening::Object) => {
            parse::<Entries<GqaQuestion>>(path)?.0.into_iter().map(Question::from).collect()
        }
        (Form::AOkVqa, Opening::Object) => {
            return Err(FileError::unusable(path, "is an object; A-OKVQA's questions are a list"));
        }
        (form, Opening::List) => {
            let rows: Vec<Row> = parse(path)?;
            rows.into_iter().map(|row| row.question(form == Form::AOkVqa)).collect()
        }
    };
    checked(path, questions)
}

/// The questions of a file without answers: VQA's `{"questions": [{question_id, image_id, question}]}`, or a
/// list of LAVIS's.
///
/// # Errors
/// A file that cannot be read or is of another form, an id that is there twice, and a file without questions.
pub fn read_asked(path: &Path) -> Result<Vec<Question>> {
    let questions: Vec<Question> = match opening(path)? {
        Opening::Object => parse::<QuestionTexts>(path)?.questions.into_iter().map(Question::from).collect(),
        Opening::List => parse::<Vec<Row>>(path)?.into_iter().map(|row| row.question(false)).collect(),
    };
    each_once(path, &questions)?;
    Ok(questions)
}

/// Adds the texts of VQA's `{"questions": [{question_id, image_id, question}]}`.
///
/// # Errors
/// A file that cannot be read or is of another form, one that does not have exactly these questions, and a
/// question of another image.
pub fn add_texts(path: &Path, questions: &mut [Question]) -> Result<()> {
    let mut texts = BTreeMap::new();
    for text in parse::<QuestionTexts>(path)?.questions {
        let id = text.question_id.clone();
        if texts.insert(text.question_id, (text.image_id, text.question)).is_some() {
            return Err(FileError::unusable(path, format!("question {id} is there twice")));
        }
    }
    let mut missing = Vec::new();
    for question in questions.iter_mut() {
        match texts.remove(&question.id) {
            None => missing.push(&question.id),
            Some((Some(image), _)) if image != question.image => {
                let (id, other) = (&question.id, &question.image);
                let reason =
                    format!("question {id} is on image {image}, and on image {other} in the references");
                return Err(FileError::unusable(path, reason));
            }
            Some((_, text)) => question.text = Some(text),
        }
    }
    same_ids(path, "questions of the references", &missing, &texts.keys().collect::<Vec<_>>())
}

/// Nothing is missing and nothing unknown.
pub(super) fn same_ids(path: &Path, what: &str, missing: &[&RowId], unknown: &[&RowId]) -> Result<()> {
    let mut said = Vec::new();
    if !missing.is_empty() {
        said.push(format!("lacks {} {what}: {}", missing.len(), listed(missing)));
    }
    if !unknown.is_empty() {
        said.push(format!("has {} ids that are no {what}: {}", unknown.len(), listed(unknown)));
    }
    if said.is_empty() { Ok(()) } else { Err(FileError::unusable(path, said.join("; "))) }
}

/// The first ten.
fn listed(ids: &[&RowId]) -> String {
    let first: Vec<String> = ids.iter().take(10).map(ToString::to_string).collect();
    let more = if ids.len() > first.len() { ", …" } else { "" };
    first.join(", ") + more
}

/// There is one, and none is there twice.
fn each_once(path: &Path, questions: &[Question]) -> Result<()> {
    if questions.is_empty() {
        return Err(FileError::unusable(path, "has no questions"));
    }
    let mut seen = BTreeSet::new();
    match questions.iter().find(|question| !seen.insert(&question.id)) {
        None => Ok(()),
        Some(Question { id, .. }) => Err(FileError::unusable(path, format!("question {id} is there twice"))),
    }
}

fn checked(path: &Path, questions: Vec<Question>) -> Result<Vec<Question>> {
    each_once(path, &questions)?;
    for question in &questions {
        let id = &question.id;
        if question.answers.is_empty() {
            let reason = format!("question {id} has no answer; is this the file of a test without answers?");
            return Err(FileError::unusable(path, reason));
        }
    }
    Ok(questions)
}

impl From<QuestionText> for Question {
    fn from(asked: QuestionText) -> Self {
        Self {
            image: asked.image_id.unwrap_or_else(|| asked.question_id.clone()),
            id: asked.question_id,
            file: None,
            text: Some(asked.question),
            types: Vec::new(),
            answers: Vec::new(),
        }
    }
}

impl From<Annotation> for Question {
    fn from(annotation: Annotation) -> Self {
        let answers = annotation.answers.0.into_iter().map(|answer| HumanAnswer {
            answer: answer.answer,
            confidence: answer.answer_confidence,
            id: answer.answer_id,
        });
        let types = [("answer type", annotation.answer_type), ("question type", annotation.question_type)];
        Self {
            image: annotation.image_id.unwrap_or_else(|| annotation.question_id.clone()),
            id: annotation.question_id,
            file: None,
            text: None,
            types: known(types),
            answers: answers.collect(),
        }
    }
}

impl Row {
    fn question(self, is_direct: bool) -> Question {
        let answers = if is_direct { self.direct_answers } else { self.answer };
        Question {
            file: self.image.as_ref().map(ToString::to_string),
            image: self.image_id.or(self.image).unwrap_or_else(|| self.question_id.clone()),
            id: self.question_id,
            text: self.question,
            types: Vec::new(),
            answers: HumanAnswer::numbered(answers.map(|answers| answers.0).unwrap_or_default()),
        }
    }
}

impl From<(String, GqaQuestion)> for Question {
    fn from((id, question): (String, GqaQuestion)) -> Self {
        let id = RowId::from(id.as_str());
        let types =
            [("structural type", question.types.structural), ("semantic type", question.types.semantic)];
        Self {
            image: question.image_id.unwrap_or_else(|| id.clone()),
            id,
            file: None,
            text: question.question,
            types: known(types),
            answers: HumanAnswer::numbered(question.answer),
        }
    }
}

fn known<const N: usize>(types: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
    types.into_iter().filter_map(|(kind, name)| Some((kind, name?))).collect()
}
