//! A folder of images with their captions beside them: `cat.jpg` and `cat.txt`, `cat.caption` or `cat.json`.

use std::collections::BTreeMap;

use blip2_store::error::StoreError;
use blip2_store::{Location, StorePool, StoredObject};
use futures::StreamExt;

use super::json_list::captions_of;
use super::rows::Rows;
use crate::corpus::ingest::json::from_slice;
use crate::corpus::ingest::kind::IMAGE_ENDINGS;
use crate::corpus::ingest::row::{Refusal, RejectReason, RowImage, SourceRow};
use crate::error::Result;

/// Endings of captions, by preference.
const CAPTIONS: [&str; 4] = ["txt", "caption", "text", "json"];
/// Longest file that is text, bytes.
const MAX_TEXT: u64 = 4 << 20;
/// Captions read at the same time.
const READ_AHEAD: usize = 16;

/// An image, or captions without one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pair {
    /// Path below the folder, without its ending.
    key: String,
    images: Vec<String>,
    /// Files with captions, by preference.
    captions: Vec<(String, u64)>,
}

/// What a folder holds, and the sum of its files' lengths.
pub(super) async fn pairs(pool: &mut StorePool, folder: &Location) -> Result<(Vec<Pair>, u64)> {
    let files = pool.files_below(folder).await?;
    let depth = folder.path().parts().count();
    let bytes = files.iter().map(|file| file.bytes).sum();
    let pairs = pair(files.iter().map(|file| (below(file, depth), file.bytes)));
    if !pairs.iter().any(|pair| !pair.images.is_empty()) {
        let wanted = format!("pictures ({})", IMAGE_ENDINGS.join(", "));
        return Err(StoreError::EmptyFolder { folder: folder.to_string(), wanted }.into());
    }
    Ok((pairs, bytes))
}

fn below(file: &StoredObject, depth: usize) -> String {
    let parts: Vec<_> = file.location.path().parts().skip(depth).collect();
    parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/")
}

/// Images with the captions that are called like them, `cat.txt` or `cat.jpg.txt`; sorted.
fn pair(files: impl Iterator<Item = (String, u64)>) -> Vec<Pair> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut captions: Vec<(usize, String, String, u64)> = Vec::new();
    for (path, bytes) in files {
        let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
        let Some((stem, ending)) = path[name_at..].rsplit_once('.') else { continue };
        let (stem, ending) = (format!("{}{stem}", &path[..name_at]), ending.to_ascii_lowercase());
        if IMAGE_ENDINGS.contains(&ending.as_str()) {
            let pair = pairs.entry(path.clone()).or_default();
            pair.key.clone_from(&stem);
            pair.images.push(path);
        } else if let Some(place) = CAPTIONS.iter().position(|known| *known == ending) {
            captions.push((place, stem, path, bytes));
        }
    }
    captions.sort();
    let mut by_stem: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, pair) in &pairs {
        by_stem.entry(pair.key.clone()).or_default().push(path.clone());
    }
    for (_, stem, path, bytes) in captions {
        let of_name = pairs.contains_key(&stem).then(|| vec![stem.clone()]);
        let owners = of_name.or_else(|| by_stem.get(&stem).cloned()).unwrap_or_else(|| vec![path.clone()]);
        for owner in owners {
            let pair = pairs.entry(owner).or_default();
            if pair.key.is_empty() {
                pair.key.clone_from(&stem);
            }
            pair.captions.push((path.clone(), bytes));
        }
    }
    // An image in two forms is two rows; captions alone, such as a licence or a list, are rows without an
    // image.
    pairs.into_values().collect()
}

/// The rows of some pairs, whose captions are read on the way.
pub(super) fn rows(folder: Location, pairs: Vec<Pair>, first_row: u64) -> Rows {
    let rows = (first_row..).zip(pairs);
    let read = rows.map(move |(row, pair)| {
        let folder = folder.clone();
        async move { source_row(&folder, row, pair).await }
    });
    futures::stream::iter(read).buffered(READ_AHEAD).boxed()
}

async fn source_row(folder: &Location, row: u64, pair: Pair) -> Result<SourceRow> {
    let mut captions = Vec::new();
    let mut fault: Option<Refusal> = None;
    for (path, bytes) in &pair.captions {
        match read(folder, path, *bytes).await? {
            Ok(found) => captions = found,
            Err(reason) => fault = Some((RejectReason::MalformedRow, reason)),
        }
        if !captions.is_empty() {
            break;
        }
    }
    let image = match (fault, pair.images.is_empty()) {
        (Some(fault), _) if captions.is_empty() => Err(fault),
        (_, true) => Err((RejectReason::NoImage, "no picture beside it is called like it".to_owned())),
        (_, false) => Ok(RowImage::Named(pair.images)),
    };
    Ok(SourceRow { row, key: pair.key, captions, url: None, image })
}

/// The captions in a file: its whole text is one; of JSON what is a caption there.
async fn read(folder: &Location, path: &str, bytes: u64) -> Result<Result<Vec<String>, String>> {
    if bytes > MAX_TEXT {
        return Ok(Err(format!("`{path}` has {bytes} bytes, more than {MAX_TEXT}")));
    }
    let content = folder.join(path).read().await?.unwrap_or_default();
    if path.to_ascii_lowercase().ends_with(".json") {
        let json = from_slice::<serde_json::Value>(&content);
        return Ok(json
            .map(|json| captions_of(&json))
            .map_err(|error| format!("`{path}` is no JSON: {error}")));
    }
    let text = String::from_utf8(content.to_vec()).map_err(|_| format!("`{path}` is no UTF-8 text"));
    Ok(text.map(|text| {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }
    }))
}

/// How many of a folder's files there are, hashed with their names: another set of files is another source.
pub(super) fn fingerprint(pairs: &[Pair]) -> String {
    let mut hasher = blake3::Hasher::new();
    for pair in pairs {
        let captions = pair.captions.iter().map(|(name, _)| name);
        for name in pair.images.iter().chain(captions) {
            hasher.update(name.as_bytes()).update(&[0]);
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The pairs of a folder, collected from its rows for the tests.
#[cfg(test)]
async fn all(folder: &Location) -> Vec<SourceRow> {
    use futures::TryStreamExt;
    let (found, _) = pairs(&mut StorePool::default(), folder).await.unwrap();
    rows(folder.clone(), found, 0).try_collect().await.unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DatasetError;

    #[tokio::test]
    async fn images_meet_their_captions() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("a.jpg", "x"),
            ("a.txt", "\u{feff}one\r\n"),
            ("b b#1.PNG", "x"),
            ("b b#1.PNG.txt", "two"),
            ("sub/a.webp", "x"),
            ("sub/a.caption", "three"),
            ("c.jpg", "x"),
            ("c.txt", " \n"),
            ("c.json", r#"{"captions":null,"caption":"four","score":NaN}"#),
            ("d.jpg", "x"),
            ("README.txt", "read me"),
            (".hidden.jpg", "x"),
            ("._a.jpg", "x"),
            ("model.ckpt", "x"),
        ] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let rows = all(&Location::parse(folder.path().to_str().unwrap()).unwrap()).await;
        let shown: Vec<_> =
            rows.iter().map(|row| (row.key.as_str(), row.captions.join("|"), row.image.is_ok())).collect();
        let row = |key, caption: &str, usable| (key, caption.to_owned(), usable);
        assert_eq!(
            shown,
            [
                row("README", "read me", false),
                row("a", "one", true),
                row("b b#1", "two", true),
                row("c", "four", true),
                row("d", "", true),
                row("sub/a", "three", true),
            ]
        );
    }

    #[tokio::test]
    async fn a_folder_without_images_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "x").unwrap();
        let location = Location::parse(folder.path().to_str().unwrap()).unwrap();
        let error = pairs(&mut StorePool::default(), &location).await.unwrap_err();
        assert!(
            matches!(&error, DatasetError::Store(StoreError::EmptyFolder { wanted, .. }) if wanted.contains("jpg")),
            "{error}"
        );
    }
}
