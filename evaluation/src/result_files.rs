//! Results and what is right, in the forms that `eval score` and the data sets' own tools read.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::answer_files::questions::Question;
use crate::metrics::captions::corpus::ImageCaptions;
use crate::reranking::to_bytes;
use crate::row_id::RowId;
use crate::similarity_files::matrix::{Matrix, SimilarityFile};

/// COCO's results: `[{image_id, caption}]`.
pub fn captions<'a>(rows: impl Iterator<Item = (&'a RowId, &'a str)>) -> Value {
    rows.map(|(image_id, caption)| json!({"image_id": image_id, "caption": caption})).collect()
}

/// COCO's annotations.
pub fn caption_references(images: &[ImageCaptions]) -> Value {
    let captions =
        images.iter().flat_map(|image| image.references.iter().map(|caption| (&image.image, caption)));
    let annotations: Value = (0_u64..)
        .zip(captions)
        .map(|(id, (image_id, caption))| json!({"id": id, "image_id": image_id, "caption": caption}))
        .collect();
    let images: Value = images.iter().map(|image| json!({"id": image.image})).collect();
    json!({"images": images, "annotations": annotations})
}

/// VQA's results: `[{question_id, answer}]`.
pub fn answers<'a>(rows: impl Iterator<Item = (&'a RowId, &'a str)>) -> Value {
    rows.map(|(question_id, answer)| json!({"question_id": question_id, "answer": answer})).collect()
}

/// VQA's annotations.
pub fn answer_references<'a>(questions: impl Iterator<Item = &'a Question>) -> Value {
    let annotation = |question: &Question| {
        let kind = |name: &str| {
            question.types.iter().find(|(kind, _)| *kind == name).map(|(_, value)| value.clone())
        };
        let answer = |answer: &crate::metrics::vqa::HumanAnswer| json!({"answer": answer.answer, "answer_confidence": answer.confidence, "answer_id": answer.id});
        json!({
            "question_id": question.id,
            "image_id": question.image,
            "question_type": kind("question type"),
            "answer_type": kind("answer type"),
            "answers": question.answers.iter().map(answer).collect::<Vec<_>>(),
        })
    };
    json!({"annotations": questions.map(annotation).collect::<Vec<_>>()})
}

/// Images' names with their texts, as Karpathy's splits have them.
pub fn pair_references<'a>(images: impl Iterator<Item = (&'a str, &'a [String])>) -> Value {
    images.map(|(image, caption)| json!({"image": image, "caption": caption})).collect()
}

/// `cosine`, `scores_i2t` and `scores_t2i` as a `.safetensors` file.
///
/// # Errors
/// In words, for matrices that are none.
pub fn similarities(file: &SimilarityFile) -> Result<Vec<u8>, String> {
    let reranked = file.reranked.as_ref();
    let named = [
        ("cosine", file.all.as_ref()),
        ("scores_i2t", reranked.map(|(by_images, _)| by_images)),
        ("scores_t2i", reranked.map(|(_, by_texts)| by_texts)),
    ];
    let present = named.into_iter().filter_map(|(name, matrix)| Some((name, matrix?)));
    let bytes: Vec<(&str, &Matrix, Vec<u8>)> =
        present.map(|(name, matrix)| (name, matrix, to_bytes(&matrix.values))).collect();
    let views = bytes.iter().map(|(name, matrix, bytes)| {
        Ok((*name, TensorView::new(Dtype::F32, vec![matrix.rows, matrix.columns], bytes)?))
    });
    let views: Vec<_> =
        views.collect::<Result<_, safetensors::SafeTensorError>>().map_err(|error| error.to_string())?;
    safetensors::serialize(views, None).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_files::questions::{self, Form};
    use crate::answer_files::results;
    use crate::metrics::captions::coco::{Source, corpus};
    use crate::similarity_files;

    fn written(value: &Value) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), value.to_string()).unwrap();
        file
    }

    #[test]
    fn captions_are_read_back_by_the_scorer() {
        let images = [ImageCaptions {
            image: RowId::Text("a b.jpg".into()),
            references: vec!["one".into(), "two".into()],
            hypothesis: "three".into(),
        }];
        let rows = images.iter().map(|image| (&image.image, image.hypothesis.as_str()));
        let (results, references) = (captions(rows).to_string(), caption_references(&images).to_string());
        let read = corpus(
            Source { origin: "references", content: references.as_bytes() },
            Source { origin: "results", content: results.as_bytes() },
        );
        assert_eq!(read.unwrap().images(), images);
    }

    #[test]
    fn answers_are_read_back_by_the_scorer() {
        let annotations = json!({"annotations": [{"question_id": 3, "image_id": 7, "question_type": "what",
            "answer_type": "other", "answers": [{"answer": "dog", "answer_confidence": "yes", "answer_id": 1}]}]});
        let first = questions::read(written(&annotations).path(), Form::Vqa).unwrap();
        let again = written(&answer_references(first.iter()));
        assert_eq!(questions::read(again.path(), Form::Vqa).unwrap(), first);
        let rows = written(&answers([(&first[0].id, "cat")].into_iter()));
        assert_eq!(results::read(rows.path(), &first).unwrap(), ["cat"]);
    }

    #[test]
    fn similarities_are_read_back_by_the_scorer() {
        let matrix = |rows, columns| Matrix { rows, columns, values: (0..6).map(|n| n as f32).collect() };
        let file = SimilarityFile { all: Some(matrix(2, 3)), reranked: Some((matrix(2, 3), matrix(3, 2))) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.safetensors");
        std::fs::write(&path, similarities(&file).unwrap()).unwrap();
        assert_eq!(similarity_files::read(&path).unwrap(), file);
    }
}
