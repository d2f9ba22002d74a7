//! What a model answered.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::entries::Entries;
use super::parse::{Opening, opening, parse};
use super::questions::{Question, same_ids};
use crate::file_error::{FileError, Result};
use crate::row_id::RowId;

/// A row of VQA's, GQA's (`questionId`, `prediction`) or LAVIS's (`pred_ans`) results.
#[derive(Deserialize)]
struct Row {
    #[serde(alias = "questionId")]
    question_id: RowId,
    #[serde(alias = "prediction", alias = "pred_ans")]
    answer: String,
}

/// A-OKVQA's predictions, by question.
#[derive(Deserialize)]
struct Prediction {
    direct_answer: String,
}

/// The answer to each of the questions, in their order, from a list of `{question_id, answer}` or A-OKVQA's
/// `{question_id: {direct_answer}}`.
///
/// # Errors
/// A file that cannot be read or is of another form, an id that is there twice, and one that does not answer
/// exactly these questions: with the ids that are missing or unknown.
pub fn read(path: &Path, questions: &[Question]) -> Result<Vec<String>> {
    let rows: Vec<Row> = match opening(path)? {
        Opening::List => parse(path)?,
        Opening::Object => parse::<Entries<Prediction>>(path)?
            .0
            .into_iter()
            .map(|(id, said)| Row { question_id: RowId::from(id.as_str()), answer: said.direct_answer })
            .collect(),
    };
    let mut answers = BTreeMap::new();
    for row in rows {
        let id = row.question_id.clone();
        if answers.insert(row.question_id, row.answer).is_some() {
            return Err(FileError::unusable(path, format!("question {id} is answered twice")));
        }
    }
    let found: Vec<Option<String>> = questions.iter().map(|question| answers.remove(&question.id)).collect();
    let missing: Vec<&RowId> = questions
        .iter()
        .zip(&found)
        .filter(|(_, found)| found.is_none())
        .map(|(question, _)| &question.id)
        .collect();
    same_ids(path, "questions of the references", &missing, &answers.keys().collect::<Vec<_>>())?;
    Ok(found.into_iter().flatten().collect())
}
