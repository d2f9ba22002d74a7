//! Credentials in URLs: what is printed and stored leaves them out, what is fetched has them.
//!
//! A URL may carry a user and password (`https://user:pw@host/`) or a signature (`?X-Amz-Signature=…`,
//! `?sig=…`, `?token=…`). Neither is ever shown: [`redacted`] puts `REDACTED` in their place. This process
//! remembers what stood there, so that a location which was stored without its credentials can be opened
//! again by whoever was told them; nobody else can.

use std::sync::{Mutex, PoisonError};

use object_store::path::Path;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What stands in the place of credentials.
pub(crate) const REDACTED: &str = "REDACTED";

/// Parts of names of query parameters whose values are secret, in lower case.
const SECRET_PARTS: [&str; 14] = [
    "sign", "token", "secret", "passw", "pwd", "auth", "cred", "key", "policy", "session", "jwt", "hmac",
    "accessid", "expires",
];
/// Beginnings of such names.
const SECRET_STARTS: [&str; 5] = ["x-amz-", "x-goog-", "x-oss-", "x-ms-", "x-cos-"];
/// Whole names that are secret, or signed together with a secret (Azure's shared access signatures).
const SECRET_NAMES: [&str; 17] = [
    "sig", "se", "sp", "sv", "sr", "st", "ss", "srt", "spr", "sip", "sks", "skv", "ske", "skt", "skoid",
    "sktid", "e",
];
/// A value of this length that mixes letters and digits is taken for a secret, whatever its name.
const SECRET_LENGTH: usize = 32;
/// Schemes whose user is part of the place (`abfss://container@account…`) and no secret without a password.
const USER_IS_PLACE: [&str; 5] = ["abfs", "abfss", "az", "azure", "adl"];

/// The parts of a URL, as it is written.
struct Pieces<'a> {
    scheme: &'a str,
    user: Option<&'a str>,
    /// Host, port and path.
    place: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Pieces<'a> {
    /// `None` for what is no URL with a scheme.
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(known) || scheme.eq_ignore_ascii_case("file") {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let at = match rest[..end].rfind('@') {
            Some(at) => Some(at),
            // A password with a slash that is not escaped: no port has letters.
            None if has_password(&rest[..end]) => rest.rfind('@'),
            None => None,
        };
        let (user, rest) = match at {
            Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
            None => (None, rest),
        };
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        Some(Self { scheme, user, place, query, fragment })
    }

    fn user_is_secret(&self) -> bool {
        let place = USER_IS_PLACE.iter().any(|scheme| self.scheme.eq_ignore_ascii_case(scheme));
        self.user.is_some_and(|user| !user.is_empty() && (!place || user.contains(':')))
    }

    fn shown(&self) -> String {
        let mut text = format!("{}://", self.scheme);
        if let Some(user) = self.user {
            text += if self.user_is_secret() { REDACTED } else { user };
            text.push('@');
        }
        text += self.place;
        if let Some(query) = self.query.map(shown_query).filter(|query| !query.is_empty()) {
            text = format!("{text}?{query}");
        }
        if let Some(fragment) = self.fragment {
            text = format!("{text}#{fragment}");
        }
        text
    }
}

/// `name:something` with something that is no port.
fn has_password(authority: &str) -> bool {
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| !port.bytes().all(|byte| byte.is_ascii_digit()) && !port.ends_with(']'))
}

fn is_secret(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or(("", parameter));
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.contains(&name.as_str())
        || SECRET_STARTS.iter().any(|start| name.starts_with(start))
        || SECRET_PARTS.iter().any(|part| name.contains(part))
        || looks_secret(value)
}

fn looks_secret(value: &str) -> bool {
    let has = |kind: fn(&u8) -> bool| value.as_bytes().iter().any(kind);
    value.len() >= SECRET_LENGTH
        && !value.contains(['/', ' '])
        && has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
}

/// What says where and which; one mark for all that is secret, so that a URL signed again is shown as before.
fn shown_query(query: &str) -> String {
    let all = query.split('&').filter(|parameter| !parameter.is_empty() && *parameter != REDACTED);
    let (secret, plain): (Vec<&str>, Vec<&str>) = all.partition(|parameter| is_secret(parameter));
    let mark =
        (!secret.is_empty() || query.split('&').any(|parameter| parameter == REDACTED)).then_some(REDACTED);
    plain.into_iter().chain(mark).collect::<Vec<_>>().join("&")
}

/// A path or URL without credentials; most are returned as they are.
pub fn redacted(location: &str) -> String {
    Pieces::of(location).map_or_else(|| location.to_owned(), |pieces| pieces.shown())
}

/// Whether a URL carries credentials.
pub fn has_credentials(location: &str) -> bool {
    redacted(location) != location
}

/// Any text (an error, a log line) with the credentials of all URLs in it left out.
pub fn redacted_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let scheme = rest[..found].bytes().rev().take_while(|byte| is_scheme(*byte)).count();
        let (before, url) = rest.split_at(found - scheme);
        let ends = |letter: char| letter.is_whitespace() || letter.is_control() || "\"<>\\`".contains(letter);
        let length = url.find(ends).unwrap_or(url.len());
        let (url, after) = url.split_at(length);
        out += before;
        out += &redacted(url);
        rest = after;
    }
    out + rest
}

/// What was left out of one URL.
#[derive(Clone, PartialEq, Eq)]
struct Remembered {
    scheme: String,
    /// Host, port and path, decoded.
    place: String,
    shown_query: String,
    user: String,
    query: String,
}

/// The credentials that this process was told.
static REMEMBERED: Mutex<Vec<Remembered>> = Mutex::new(Vec::new());

/// Remembers the credentials of a URL, if it has any, for `with_credentials`.
pub fn remember_credentials(location: &str) {
    let Some(pieces) = Pieces::of(location) else { return };
    if !has_credentials(location) {
        return;
    }
    let query = pieces.query.unwrap_or_default();
    let entry = Remembered {
        scheme: pieces.scheme.to_owned(),
        place: decoded(pieces.place),
        shown_query: shown_query(query),
        user: pieces.user.unwrap_or_default().to_owned(),
        query: query.to_owned(),
    };
    let mut all = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |other: &Remembered| {
        (&other.scheme, &other.place, &other.shown_query) == (&entry.scheme, &entry.place, &entry.shown_query)
    };
    // A URL that was signed again takes the place of the older one.
    all.retain(|other| !same(other));
    all.push(entry);
}

/// The URL with the credentials that this process remembers for it: its own, or those of the nearest folder
/// above it.
///
/// `None` when credentials were left out that nobody told this process.
pub(crate) fn with_credentials(location: &str) -> Option<String> {
    let Some(pieces) = Pieces::of(location) else { return Some(location.to_owned()) };
    let lacks_query = pieces.query.is_some_and(|query| query.split('&').any(|part| part == REDACTED));
    if pieces.user != Some(REDACTED) && !lacks_query {
        return Some(location.to_owned());
    }
    let query = shown_query(pieces.query.unwrap_or_default());
    let place = decoded(pieces.place);
    let all = REMEMBERED.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |entry: &&Remembered| {
        entry.scheme == pieces.scheme
            && entry.shown_query == query
            && entry.user.is_empty() == pieces.user.is_none()
    };
    let near = |entry: &&Remembered| place.starts_with(folder_of(&entry.place));
    let exact = all.iter().rev().find(|entry| fits(entry) && entry.place == place);
    let nearest = || {
        all.iter()
            .filter(|entry| fits(entry) && near(entry))
            .max_by_key(|entry| folder_of(&entry.place).len())
    };
    let known = exact.or_else(nearest)?;
    let user = if known.user.is_empty() { String::new() } else { format!("{}@", known.user) };
    let query = if known.query.is_empty() { String::new() } else { format!("?{}", known.query) };
    let fragment = pieces.fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    Some(format!("{}://{user}{}{query}{fragment}", pieces.scheme, pieces.place))
}

/// The place as stores name it, without escapes: manifests spell it so.
fn decoded(place: &str) -> String {
    Path::from_url_path(place).map_or_else(|_| place.to_owned(), |path| path.to_string())
}

/// Up to the last slash, or the first character that makes a pattern.
fn folder_of(place: &str) -> &str {
    let end = place.find(['*', '{', '[']).unwrap_or(place.len());
    place[..end].rfind('/').map_or(place, |slash| &place[..=slash])
}

/// A configuration as it is stored and hashed: without the credentials of its URLs. One without any is
/// returned as it is.
pub fn without_credentials<T: Serialize + DeserializeOwned + Clone>(config: &T) -> T {
    let Ok(mut value) = serde_json::to_value(config) else { return config.clone() };
    let mut found = false;
    each_text(&mut value, &mut |text| {
        if has_credentials(text) {
            found = true;
            *text = redacted(text);
        }
    });
    match found {
        // What was serialised reads back.
        true => serde_json::from_value(value).unwrap_or_else(|_| config.clone()),
        false => config.clone(),
    }
}

/// Remembers the credentials of all URLs of a configuration in this process, so that what is stored without
/// them can be opened here.
pub fn remember_credentials_of(config: &impl Serialize) {
    if let Ok(mut value) = serde_json::to_value(config) {
        each_text(&mut value, &mut |text| remember_credentials(text));
    }
}

fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, visit)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each_text(field, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_left_out_and_places_stay() {
        for (written, shown) in [
            ("/data/a?token=x", "/data/a?token=x"),
            ("file:///data/a", "file:///data/a"),
            ("s3://bucket/a/*.parquet", "s3://bucket/a/*.parquet"),
            ("https://user:pw@host/a", "https://REDACTED@host/a"),
            ("https://ghp_abc@host:8080/a", "https://REDACTED@host:8080/a"),
            ("https://user:p@ss@host/a", "https://REDACTED@host/a"),
            ("https://user:pa/ss@host/a", "https://REDACTED@host/a"),
            ("https://host:80/a@b", "https://host:80/a@b"),
            ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
            (
                "abfss://container@account.dfs.core.windows.net/a",
                "abfss://container@account.dfs.core.windows.net/a",
            ),
            ("s3://key:secret@bucket/a", "s3://REDACTED@bucket/a"),
            ("https://h/a?versionId=3&X-Amz-Date=1&X-Amz-Signature=2", "https://h/a?versionId=3&REDACTED"),
            ("https://h/a?sv=2&sr=c&sig=x%2F", "https://h/a?REDACTED"),
            ("https://h/a?token=1#blake3=00", "https://h/a?REDACTED#blake3=00"),
            ("https://h/a?download=true", "https://h/a?download=true"),
            ("https://h/a?x=0123456789abcdef0123456789abcdef", "https://h/a?REDACTED"),
            ("https://h/a?id=5&REDACTED", "https://h/a?id=5&REDACTED"),
        ] {
            assert_eq!(redacted(written), shown);
            assert_eq!(redacted(shown), shown, "what is shown stays");
        }
    }

    #[test]
    fn urls_are_found_in_any_text() {
        let text = "cannot read `https://u:pw@h/a`: Error performing GET https://h/b?X-Amz-Signature=cafe in 1s \
                    (http://h/c), {\"url\":\"https://h/d?sig=1\"}";
        let shown = redacted_text(text);
        for secret in ["pw@", "cafe", "sig=1"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(
            shown.contains("`https://REDACTED@h/a`: Error") && shown.contains("?REDACTED in 1s"),
            "{shown}"
        );
        assert!(shown.contains("(http://h/c)") && shown.ends_with("?REDACTED\"}"), "{shown}");
        assert_eq!(redacted_text("no URL :// here"), "no URL :// here");
    }

    #[test]
    fn what_was_left_out_is_remembered() {
        let signed = "https://remembered.example/c/a%20b.parquet?id=1&sig=first";
        assert_eq!(with_credentials(&redacted(signed)), None);
        remember_credentials(signed);
        assert_eq!(with_credentials(&redacted(signed)).as_deref(), Some(signed));
        let decoded = with_credentials(&redacted(signed).replace("%20", " ")).unwrap();
        assert!(decoded.ends_with("c/a b.parquet?id=1&sig=first"), "{decoded}");
        let again = signed.replace("first", "second");
        remember_credentials(&again);
        assert_eq!(with_credentials(&redacted(signed)), Some(again));
        remember_credentials("https://u:pw@remembered.example/data/*.parquet");
        let below = with_credentials("https://REDACTED@remembered.example/data/deep/x.parquet").unwrap();
        assert_eq!(below, "https://u:pw@remembered.example/data/deep/x.parquet");
        assert_eq!(with_credentials("https://REDACTED@remembered.example/other/x"), None);
        assert_eq!(with_credentials("https://remembered.example/x").unwrap(), "https://remembered.example/x");
    }
}
