//! The rows that the members of one key make.
//!
//! A key is a name up to its first dot, as WebDataset has it. What follows is a member's extension, of which
//! only the last part says what it is: `0001.seg.png` belongs to `0001.jpg`. Names that have dots otherwise
//! (`photo.0.jpg`, `2023.01.jpg`) share a key; there each image with a text of its own name is a row of its
//! own.

use bytes::Bytes;
use serde_json::Value;

use crate::corpus::ingest::row::{Refusal, RejectReason, RowImage};
use crate::text::is_visible;

/// Names of a key that are held until the next key comes; with more of them each is a row of its own.
const MAX_NAMES: usize = 64;
/// Bytes of these.
const MAX_HELD: usize = 64 << 20;
/// Characters of a name in a reason.
const MAX_SHOWN: usize = 200;
/// Fields with captions, by preference: before the text of a member, and where there is none.
const CAPTIONS: [&str; 2] = ["captions", "caption"];
const OTHER_CAPTIONS: [&str; 4] = ["text", "TEXT", "alt_text", "top_caption"];

/// What a member holds.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Its place among the names of images, and its bytes.
    RowImage(usize, Result<Bytes, Refusal>),
    Text(Result<String, Refusal>),
    Json(Result<Value, Refusal>),
    /// Nothing that is used.
    Other,
}

/// A row, but for its index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draft {
    pub(super) key: String,
    pub(super) captions: Vec<String>,
    pub(super) url: Option<String>,
    pub(super) image: Result<RowImage, Refusal>,
    /// Whether it has an image and a text, whatever these are.
    pub(super) whole: bool,
}

/// The members of one key that follow each other.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Folder and name up to the first dot.
    base: String,
    names: Vec<Named>,
    /// Whether each name is a row of its own.
    apart: bool,
}

/// The members of one name, which differ in the last part of their extension.
#[derive(Debug, Default)]
struct Named {
    /// Between the first dot and the last.
    stem: String,
    current: Members,
    /// Extensions of the row before under the same name.
    before: Option<Vec<String>>,
    /// How often each extension came since it could no longer be told what belongs together.
    clash: Option<Vec<(String, usize)>>,
}

/// Members of one row: of each extension one.
#[derive(Debug, Default)]
struct Members {
    extensions: Vec<String>,
    image: Option<(usize, Result<Bytes, Refusal>)>,
    text: Option<Result<String, Refusal>>,
    json: Option<Result<Value, Refusal>>,
}

/// Folder and name up to the first dot; what is between that and the last dot; the last part of the
/// extension.
pub(super) fn split_name(path: &str) -> (&str, &str, &str) {
    let name_at = path.rfind('/').map_or(0, |slash| slash + 1);
    let Some(dot) = path[name_at..].find('.') else { return (path, "", "") };
    let (base, rest) = (&path[..name_at + dot], &path[name_at + dot + 1..]);
    match rest.rsplit_once('.') {
        Some((stem, extension)) => (base, stem, extension),
        None => (base, "", rest),
    }
}

/// Whether a member belongs to no row: names that begin with a dot (macOS puts `._NAME` before each member),
/// folders and names in double underscores.
pub(super) fn is_passed_over(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let base = name.split('.').next().unwrap_or_default();
    let is_meta = base.len() > 4 && base.starts_with("__") && base.ends_with("__");
    name.starts_with('.') || is_meta || path.split('/').any(|folder| folder == "__MACOSX")
}

/// A name on one line, cut where it is long.
pub(super) fn shown(name: &str) -> String {
    name.escape_debug().take(MAX_SHOWN).collect()
}

impl Group {
    pub(super) fn new(base: &str) -> Self {
        Self { base: base.to_owned(), ..Self::default() }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Puts a member where it belongs; the rows that are finished by it.
    pub(super) fn take(&mut self, stem: &str, extension: &str, content: Content) -> Vec<Draft> {
        let mut finished = Vec::new();
        let known = match self.apart {
            true => self.names.last().filter(|last| last.stem == stem).map(|_| self.names.len() - 1),
            false => self.names.iter().position(|name| name.stem == stem),
        };
        let place = known.unwrap_or_else(|| {
            if self.apart || self.are_apart() {
                self.apart = true;
                finished = self.resolve();
            }
            self.names.push(Named { stem: stem.to_owned(), ..Named::default() });
            self.names.len() - 1
        });
        let name = &mut self.names[place];
        if let Some(members) = name.take(extension, content) {
            finished.push(members.draft(&key_of(&self.base, stem), None));
        }
        finished
    }

    /// The rows of what is left, the last of which ends with `fault` if there is one.
    pub(super) fn finish(mut self, fault: Option<Refusal>) -> Vec<Draft> {
        let mut rows = if self.names.is_empty() { Vec::new() } else { self.resolve() };
        if let Some(fault) = fault {
            let key = rows.pop().map_or_else(|| key_of(&self.base, ""), |row| row.key);
            rows.push(Draft::refused(key, fault));
        }
        rows
    }

    /// Whether the names so far show that each is a row, or are too many to be held.
    fn are_apart(&self) -> bool {
        let rows = self.names.iter().filter(|name| !name.stem.is_empty() && name.current.is_whole()).count();
        let held: usize = self.names.iter().map(|name| name.current.bytes()).sum();
        rows >= 2 || self.names.len() >= MAX_NAMES || held >= MAX_HELD
    }

    fn resolve(&mut self) -> Vec<Draft> {
        let names = std::mem::take(&mut self.names);
        let images = names.iter().filter(|name| name.current.image.is_some()).count();
        let plain = names.iter().position(|name| name.stem.is_empty());
        let main = plain.filter(|place| names[*place].current.image.is_some());
        // The one image of a key may have its text under another name.
        let only = match (images, main) {
            (1, _) => names.iter().position(|name| name.current.image.is_some()),
            (_, main) => main,
        };
        let texts: Vec<usize> = (0..names.len()).filter(|place| names[*place].current.has_text()).collect();
        let lent = match (plain.filter(|place| texts.contains(place)), texts.as_slice()) {
            (Some(plain), _) => Some(plain),
            (None, [one]) => Some(*one),
            _ => None,
        };
        let lent = lent.filter(|place| Some(*place) == plain || !names[*place].current.is_whole());
        let mut rows = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let key = key_of(&self.base, &name.stem);
            if let Some(counts) = &name.clash {
                let count = counts.iter().map(|(_, count)| *count).max().unwrap_or(1);
                rows.extend((0..count).map(|_| Draft::refused(key.clone(), clash(&key))));
                continue;
            }
            let members = &name.current;
            if Some(place) == only {
                let text = lent.filter(|_| !members.has_text()).map(|place| &names[place].current);
                let own = members.has_text() || self.apart;
                let key = if own { key } else { key_of(&self.base, "") };
                rows.push(members.draft(&key, text));
            } else if members.is_whole() || (members.image.is_some() && main.is_none()) {
                rows.push(members.draft(&key, None));
            }
        }
        if rows.is_empty() && !names.is_empty() {
            let extensions: Vec<_> = names.iter().flat_map(|name| &name.current.extensions).collect();
            let listed = extensions.iter().take(8).map(|name| format!("`{}`", shown(name)));
            let detail =
                format!("it has no member that is a picture, but {}", listed.collect::<Vec<_>>().join(", "));
            let stem = if self.apart { names[0].stem.as_str() } else { "" };
            let refused = Draft::refused(key_of(&self.base, stem), (RejectReason::NoImage, detail));
            rows.push(Draft { whole: false, ..refused });
        }
        rows
    }
}

impl Named {
    /// Puts a member in; the row that it ends, where a new one of the same name begins.
    fn take(&mut self, extension: &str, content: Content) -> Option<Members> {
        let again = self.current.extensions.iter().any(|known| known == extension);
        let mut ended = None;
        if again && self.clash.is_none() {
            let orderly = self.current.extensions.first().is_some_and(|first| first == extension)
                && self.current.is_whole()
                && self.before.as_ref().is_none_or(|before| *before == self.current.extensions);
            let whole = std::mem::take(&mut self.current);
            if orderly {
                self.before = Some(whole.extensions.clone());
                ended = Some(whole);
            } else {
                self.clash = Some(whole.extensions.into_iter().map(|name| (name, 1)).collect());
            }
        }
        match &mut self.clash {
            Some(counts) => match counts.iter_mut().find(|(name, _)| name == extension) {
                Some((_, count)) => *count += 1,
                None => counts.push((extension.to_owned(), 1)),
            },
            None => self.current.put(extension, content),
        }
        ended
    }
}

impl Members {
    fn put(&mut self, extension: &str, content: Content) {
        self.extensions.push(extension.to_owned());
        match content {
            Content::RowImage(place, image) => {
                if self.image.as_ref().is_none_or(|(known, _)| place < *known) {
                    self.image = Some((place, image));
                }
            }
            // The first of `txt`, `text` and `caption`.
            Content::Text(text) => drop(self.text.get_or_insert(text)),
            Content::Json(json) => self.json = Some(json),
            Content::Other => {}
        }
    }

    fn has_text(&self) -> bool {
        self.text.is_some() || self.json.is_some()
    }

    fn is_whole(&self) -> bool {
        self.image.is_some() && self.has_text()
    }

    fn bytes(&self) -> usize {
        let image = self.image.as_ref().and_then(|(_, image)| image.as_ref().ok());
        let text = self.text.as_ref().and_then(|text| text.as_ref().ok());
        image.map_or(0, Bytes::len) + text.map_or(0, String::len)
    }

    /// The row of these members, with the text of others where it is `lent`.
    fn draft(&self, key: &str, lent: Option<&Self>) -> Draft {
        let texts = lent.unwrap_or(self);
        let json = texts.json.as_ref().and_then(|json| json.as_ref().ok());
        let field = |name: &str| json?.get(name)?.as_str().map(str::to_owned);
        let captions = texts.captions();
        // A text that cannot be read matters where no other one was found.
        let unread = || {
            let text = texts.text.as_ref().and_then(|text| text.as_ref().err());
            texts.json.as_ref().and_then(|json| json.as_ref().err()).or(text).cloned()
        };
        let fault = if captions.is_empty() { unread() } else { None };
        let status = field("status").filter(|status| status != "success");
        let image = match (status, fault, &self.image) {
            (Some(status), ..) => Err((RejectReason::NotDownloaded, format!("status is `{status}`"))),
            (_, Some(fault), _) => Err(fault),
            (_, _, Some((_, image))) => image.clone().map(RowImage::Bytes),
            (_, _, None) => Err((RejectReason::NoImage, "it has no member that is a picture".to_owned())),
        };
        Draft {
            key: key.to_owned(),
            captions,
            url: field("url"),
            image,
            whole: self.image.is_some() && texts.has_text(),
        }
    }

    /// The captions of the first place that has some.
    fn captions(&self) -> Vec<String> {
        let json = self.json.as_ref().and_then(|json| json.as_ref().ok());
        let text = self.text.as_ref().and_then(|text| text.as_ref().ok()).cloned();
        let places = [
            json.map(|json| captions_of(json, &CAPTIONS)).unwrap_or_default(),
            text.into_iter().collect(),
            json.map(|json| captions_of(json, &OTHER_CAPTIONS)).unwrap_or_default(),
        ];
        let visible = |captions: &Vec<String>| captions.iter().any(|caption| is_visible(caption));
        places.into_iter().find(visible).unwrap_or_default()
    }
}

impl Draft {
    fn refused(key: String, refusal: Refusal) -> Self {
        Self { key, captions: Vec::new(), url: None, image: Err(refusal), whole: true }
    }
}

fn clash(key: &str) -> Refusal {
    let detail = format!(
        "members of the key `{}` come more than once, and which belong together cannot be told",
        shown(key)
    );
    (RejectReason::MalformedRow, detail)
}

/// A row's key: without the folder; empty where the name is.
fn key_of(base: &str, stem: &str) -> String {
    let name = base.rsplit('/').next().unwrap_or_default();
    match stem {
        "" => name.to_owned(),
        stem => format!("{name}.{stem}"),
    }
}

/// Captions of a member that is JSON: a text, a list of texts, of objects with one of `fields`, or one such
/// object. The first field that has a caption counts.
fn captions_of(json: &Value, fields: &[&str]) -> Vec<String> {
    match json {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(|item| captions_of(item, fields)).collect(),
        Value::Object(found) => {
            let texts = fields.iter().filter_map(|name| found.get(*name)).map(texts_of);
            let visible = |texts: &Vec<String>| texts.iter().any(|caption| is_visible(caption));
            texts.into_iter().find(visible).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(name: &str, extension: &str) -> Content {
        match extension {
            "jpg" => Content::RowImage(0, Ok(Bytes::from(name.to_owned()))),
            "png" => Content::RowImage(1, Ok(Bytes::from(name.to_owned()))),
            "txt" => Content::Text(Ok(format!("text of {name}"))),
            "json" => Content::Json(Ok(serde_json::json!({"caption": format!("json of {name}")}))),
            _ => Content::Other,
        }
    }

    /// Key, image and captions of each row; a name's part behind `#` tells members of one name apart.
    fn rows(names: &[&str]) -> Vec<String> {
        let mut group = Group::new("k");
        let mut drafts = Vec::new();
        for name in names {
            let (_, stem, extension) = split_name(name.split('#').next().unwrap());
            drafts.extend(group.take(stem, extension, content(name, extension)));
        }
        drafts.extend(group.finish(None));
        drafts
            .into_iter()
            .map(|row| match row.image {
                Ok(RowImage::Bytes(bytes)) => {
                    format!("{}: {} + {}", row.key, String::from_utf8_lossy(&bytes), row.captions.join(", "))
                }
                Ok(RowImage::Named(_)) => unreachable!(),
                Err((reason, _)) => format!("{}: {}", row.key, reason.name()),
            })
            .collect()
    }

    #[test]
    fn names_are_split_at_the_first_and_the_last_dot() {
        assert_eq!(split_name("a.b/0001.seg.png"), ("a.b/0001", "seg", "png"));
        assert_eq!(split_name("./0001.jpg"), ("./0001", "", "jpg"));
        assert_eq!(split_name("2023.01.05.jpg"), ("2023", "01.05", "jpg"));
        assert_eq!(split_name("0001"), ("0001", "", ""));
    }

    #[test]
    fn what_belongs_to_no_row_is_known() {
        for name in
            ["._a.jpg", "x/._a.jpg", ".DS_Store", "__meta__.json", "__MACOSX/a.jpg", "x/__MACOSX/a.jpg"]
        {
            assert!(is_passed_over(name), "{name}");
        }
        for name in ["a.jpg", "./a.jpg", "__a.jpg", "a__.jpg", "_.jpg", "____.jpg"] {
            assert!(!is_passed_over(name), "{name}");
        }
    }

    #[test]
    fn members_of_a_key_are_one_row() {
        assert_eq!(rows(&["k.jpg", "k.txt"]), ["k: k.jpg + text of k.txt"]);
        assert_eq!(rows(&["k.png", "k.json", "k.jpg", "k.txt"]), ["k: k.jpg + json of k.json"]);
        assert_eq!(rows(&["k.seg.png", "k.jpg", "k.txt"]), ["k: k.jpg + text of k.txt"]);
        assert_eq!(rows(&["k.image.jpg", "k.txt"]), ["k: k.image.jpg + text of k.txt"]);
        assert_eq!(rows(&["k.jpg", "k.caption.txt"]), ["k: k.jpg + text of k.caption.txt"]);
        assert_eq!(rows(&["k.txt"]), ["k: no-picture"]);
        assert_eq!(rows(&["k.cls", "k.avif"]), ["k: no-picture"]);
    }

    #[test]
    fn names_with_dots_are_rows_of_their_own() {
        let names = ["k.0.jpg", "k.0.txt", "k.1.jpg", "k.1.txt", "k.2.txt", "k.2.jpg"];
        let expected = ["k.0: k.0.jpg", "k.1: k.1.jpg", "k.2: k.2.jpg"];
        let found = rows(&names);
        assert_eq!(found.len(), 3);
        for (place, (row, begin)) in found.iter().zip(expected).enumerate() {
            assert!(row.starts_with(begin) && row.ends_with(&format!("k.{place}.txt")), "{row}");
        }
        // Also where the key has a row without such a part, and where there are more than can be held.
        let both = rows(&["k.jpg", "k.txt", "k.0.jpg", "k.0.txt"]);
        assert_eq!(both, ["k: k.jpg + text of k.txt", "k.0: k.0.jpg + text of k.0.txt"]);
        let many: Vec<String> =
            (0..500).flat_map(|row| [format!("k.{row}.jpg"), format!("k.{row}.txt")]).collect();
        let many = rows(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(many.len(), 500);
        assert_eq!(many[321], "k.321: k.321.jpg + text of k.321.txt");
        // Which image a text belongs to is not guessed.
        assert_eq!(rows(&["k.a.jpg", "k.b.jpg", "k.txt"]), ["k.a: k.a.jpg + ", "k.b: k.b.jpg + "]);
    }

    #[test]
    fn a_key_that_comes_twice_is_never_paired_wrongly() {
        let found = rows(&["k.jpg#1", "k.txt#1", "k.jpg#2", "k.txt#2"]);
        assert_eq!(found, ["k: k.jpg#1 + text of k.txt#1", "k: k.jpg#2 + text of k.txt#2"]);
        let twice = ["k: malformed-row", "k: malformed-row"];
        assert_eq!(rows(&["k.jpg#1", "k.jpg#2", "k.txt#1", "k.txt#2"]), twice);
        assert_eq!(rows(&["k.txt#1", "k.jpg#1", "k.jpg#2", "k.txt#2"]), twice);
        assert_eq!(rows(&["k.jpg#1", "k.txt#1", "k.txt#2", "k.jpg#2"]), twice);
    }

    #[test]
    fn captions_are_found_in_every_form() {
        let found = |text: &str| captions_of(&serde_json::from_str(text).unwrap(), &CAPTIONS);
        assert_eq!(found(r#"["a","b"]"#), ["a", "b"]);
        assert_eq!(found(r#"[{"caption":"a"},{"caption":"b"}]"#), ["a", "b"]);
        assert_eq!(found(r#"{"caption":"a","other":1}"#), ["a"]);
        assert_eq!(found(r#"{"captions":["a",3,"b"]}"#), ["a", "b"]);
        for nothing in ["null", "[]", r#"[""," "]"#, "7", r#"{}"#] {
            assert_eq!(found(&format!(r#"{{"captions":{nothing},"caption":"x"}}"#)), ["x"], "{nothing}");
        }
        assert!(found("[[[]]]").is_empty() && found("7").is_empty());
    }

    #[test]
    fn a_text_that_has_no_caption_gives_way_to_one_that_has() {
        let json = |json: Value, text: Option<&str>| {
            let text = text.map(|text| Ok(text.to_owned()));
            Members { json: Some(Ok(json)), text, ..Members::default() }.captions()
        };
        use serde_json::json;
        assert_eq!(json(json!({"caption": null}), Some("t")), ["t"]);
        assert_eq!(json(json!({"TEXT": "x"}), Some("t")), ["t"]);
        assert_eq!(json(json!({"TEXT": "x"}), None), ["x"]);
        assert_eq!(json(json!({"caption": "x"}), Some("")), ["x"]);
        let broken = Err((RejectReason::MalformedRow, "no JSON".to_owned()));
        let members = |text: &str| Members {
            json: Some(broken.clone()),
            text: Some(Ok(text.to_owned())),
            image: Some((0, Ok(Bytes::new()))),
            ..Members::default()
        };
        assert_eq!(members("t").draft("k", None).captions, ["t"]);
        assert_eq!(members("").draft("k", None).image.unwrap_err().0, RejectReason::MalformedRow);
    }
}
