//! Images with questions: VQA's, LAVIS's and GQA's files, and tables of one's own.

use std::path::Path;

use blip2_dataset::corpus::columns::ColumnNames;

use super::captioned::{folder_of, has_no_columns};
use super::image_folder::ImageFolder;
use super::image_source::{ImageReader, ImageSource};
use super::item::{Identity, Item, ItemSet};
use super::{own_rows, parquet_rows};
use crate::answer_files::questions::{self, Form, Question};
use crate::file_error::FileError;
use crate::job_error::Result;
use crate::metrics::vqa::HumanAnswer;
use crate::row_id::RowId;

/// The column of questions in Parquet files.
const QUESTION: &str = "question";

impl Identity for Question {
    fn identity(&self) -> String {
        format!("{}\n{}", self.id, self.text.as_deref().unwrap_or_default())
    }
}

/// Reads a set. One source that ends in `.json` is a file of `form`, with the questions' texts in `texts`
/// where they lie in a file of their own, or without answers where it has only questions; one that ends in
/// `.csv`, `.tsv` or `.jsonl` is a table with the columns `image`, `question` and `answer` or `answers`; all
/// else are Parquet files with these columns. `images` is the folder of the images that files name; without
/// it, the file's own.
///
/// # Errors
/// Files that cannot be read or are of another form, a question without a text, and images that are not
/// there.
pub async fn read(
    sources: &[String],
    form: Form,
    texts: Option<&Path>,
    images: Option<&str>,
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<ItemSet<Question>> {
    let questions = match sources {
        [source] if source.ends_with(".json") => {
            has_no_columns(source, columns)?;
            of_json(Path::new(source), form, texts)?
        }
        [source] if own_rows::is_table(source) => of_rows(Path::new(source), columns)?,
        _ => return of_parquet(sources, columns, max_pixels).await,
    };
    let folder = ImageFolder::open(folder_of(&sources[0], images)?).await?;
    let item = |row: Question| {
        let name = row.file.clone().unwrap_or_else(|| row.image.to_string());
        Ok(Item { image: ImageSource::File(folder.find(&name)?), name, row })
    };
    let items = questions.into_iter().map(item).collect::<Result<_>>()?;
    Ok(ItemSet { items, reader: ImageReader::new(Vec::new(), max_pixels) })
}

fn of_json(path: &Path, form: Form, texts: Option<&Path>) -> Result<Vec<Question>, FileError> {
    let questions = match texts {
        Some(texts) => {
            let mut questions = questions::read(path, form)?;
            questions::add_texts(texts, &mut questions)?;
            questions
        }
        // A test's file has no answers.
        None => {
            questions::read(path, form).or_else(|error| questions::read_asked(path).map_err(|_| error))?
        }
    };
    match questions.iter().find(|question| question.text.is_none()) {
        None => Ok(questions),
        Some(Question { id, .. }) => {
            let reason =
                format!("question {id} has no text; name the file of the questions with --questions");
            Err(FileError::unusable(path, reason))
        }
    }
}

/// The questions of a table of one's own.
pub(super) fn of_rows(path: &Path, columns: &ColumnNames) -> Result<Vec<Question>, FileError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut questions = Vec::new();
    for (number, row) in own_rows::read(path, columns, true)?.into_iter().enumerate() {
        let id = row.question_id.unwrap_or_else(|| number.to_string());
        if !seen.insert(id.clone()) {
            return Err(FileError::unusable(path, format!("question {id} is there twice")));
        }
        questions.push(Question {
            id: RowId::from(id.as_str()),
            image: RowId::from(row.image.as_str()),
            file: Some(row.image),
            text: row.question,
            types: Vec::new(),
            answers: HumanAnswer::numbered(row.answers),
        });
    }
    Ok(questions)
}

/// Questions are read as captions are, answers as in training: text, lists, structures with `answer`.
pub(super) async fn of_parquet(
    sources: &[String],
    columns: &ColumnNames,
    max_pixels: u64,
) -> Result<ItemSet<Question>> {
    let question = if columns.question.is_empty() { QUESTION } else { &columns.question };
    let names =
        |answers: &str| ColumnNames { question: question.into(), answers: answers.into(), ..columns.clone() };
    let answers = match columns.answers.as_str() {
        "" => match parquet_rows::read(sources, &names("answers")).await {
            Ok((_, rows)) => rows,
            Err(_) => parquet_rows::read(sources, &names("answer")).await?.1,
        },
        named => parquet_rows::read(sources, &names(named)).await?.1,
    };
    let texts = ColumnNames { caption: question.into(), captions: String::new(), ..columns.clone() };
    let (files, asked) = parquet_rows::read(sources, &texts.without_questions()).await?;
    let items = asked.into_iter().zip(answers).enumerate().map(|(number, (asked, answers))| {
        let image = if asked.key.is_empty() { number.to_string() } else { asked.key };
        let row = Question {
            id: RowId::Number(number as i64),
            image: RowId::from(image.as_str()),
            file: None,
            text: asked.texts.into_iter().next(),
            types: Vec::new(),
            answers: HumanAnswer::numbered(answers.answers),
        };
        Item { name: image, image: asked.image, row }
    });
    Ok(ItemSet { items: items.collect(), reader: ImageReader::new(files, max_pixels) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str, name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn questions_without_answers_are_asked_too() {
        let (_folder, path) = file(
            r#"{"questions": [{"question_id": 5, "image_id": 42, "question": "What is it?"}]}"#,
            "questions.json",
        );
        let questions = of_json(&path, Form::Vqa, None).unwrap();
        assert_eq!((questions[0].text.as_deref(), questions[0].answers.len()), (Some("What is it?"), 0));
        let (_folder, path) = file(
            r#"{"annotations": [{"question_id": 5, "image_id": 42, "answers": [{"answer": "dog"}]}]}"#,
            "annotations.json",
        );
        let error = of_json(&path, Form::Vqa, None).unwrap_err().to_string();
        assert!(error.contains("question 5 has no text") && error.contains("--questions"), "{error}");
    }

    #[test]
    fn rows_of_ones_own_have_numbers_for_ids() {
        let (_folder, path) = file(
            "image,question,answer\na.jpg,what?,dog\na.jpg,who?,\"[\"\"x\"\", \"\"y\"\"]\"\n",
            "rows.csv",
        );
        let questions = of_rows(&path, &ColumnNames::default()).unwrap();
        let shown = |question: &Question| (question.id.to_string(), question.answers.len());
        assert_eq!(questions.iter().map(shown).collect::<Vec<_>>(), [("0".into(), 1), ("1".into(), 2)]);
        let (_folder, path) = file("image,question,id\na.jpg,what?,7\nb.jpg,who?,7\n", "rows.csv");
        assert!(
            of_rows(&path, &ColumnNames::default())
                .unwrap_err()
                .to_string()
                .contains("question 7 is there twice")
        );
    }
}
