//! Which objects a source names: one of that very name, those that a pattern matches, or those in a folder.
//!
//! A name that exists is meant as it is written, whatever characters it has. Where there is none, `*`, `?`
//! and `[a-z]` match within a path segment, `**` any number of segments, and braces are lists: `{a,b}`,
//! `{00000..01243}`. A folder stands for the files in it whose ending is that of what is looked for, or for
//! those below it if it has none.

use std::path::{Path as FilePath, PathBuf};

use futures::{StreamExt, TryStreamExt};
use object_store::{ListResult, ObjectMeta};

use super::braces;
use super::local_walk::{self, Walked};
use super::pattern::{
    MATCHING, compile, empty_folder, has_ending, is_data_folder, is_reject_list, is_remote_pattern,
};
use crate::error::{Result, StoreError};
use crate::location::{Location, StoredObject, is_web_address, refused};
use crate::pool::StorePool;
use crate::secret_url::redacted;

/// Objects asked for at the same time.
const ASKED_FOR: usize = 64;

/// What a source names, in part: a place that is meant literally, and a pattern below it.
struct Split<'a> {
    /// Without a `/` at its end.
    literal: &'a str,
    /// Empty: the literal is all.
    pattern: &'a str,
}

impl StorePool {
    /// The objects that a source names, each pattern's sorted by path; `endings` (without a dot) are those of
    /// the files that a folder stands for.
    ///
    /// # Errors
    /// [`StoreError::Location`], [`StoreError::NotFound`], [`StoreError::NoMatch`],
    /// [`StoreError::DanglingLink`], [`StoreError::EmptyFolder`], [`StoreError::Failed`].
    pub async fn expand(&mut self, source: &str, endings: &[&str]) -> Result<Vec<StoredObject>> {
        match source.split_once("://") {
            None => self.expand_local(source, source, endings).await,
            Some(("file", _)) => {
                // In a pattern these are no parts of a URL.
                let escaped = source.replace('?', "%3F").replace('#', "%23");
                let url = url::Url::parse(&escaped).ok().and_then(|url| url.to_file_path().ok());
                let path = url.ok_or_else(|| refused(source, "not a file:///absolute/path"))?;
                let path = path.to_str().ok_or_else(|| refused(source, "its path is no UTF-8 text"))?;
                self.expand_local(source, path, endings).await
            }
            Some(_) => self.expand_remote(source, endings).await,
        }
    }

    /// The folders that a source names: one, or several in braces.
    ///
    /// # Errors
    /// [`StoreError::Location`].
    pub async fn folders(&mut self, source: &str) -> Result<Vec<Location>> {
        let is_there = self
            .parse(source)
            .ok()
            .filter(Location::is_local)
            .is_some_and(|_| FilePath::new(source).is_dir());
        let names = if is_there { vec![source.to_owned()] } else { braces::expand(source)? };
        names.iter().map(|name| self.parse(name.trim_end_matches('/'))).collect()
    }

    /// All files below a folder but hidden ones, sorted by path.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::DanglingLink`], [`StoreError::Failed`].
    pub async fn files_below(&mut self, folder: &Location) -> Result<Vec<StoredObject>> {
        if folder.is_local() {
            let root = PathBuf::from(folder.to_string());
            let walked = tokio::task::spawn_blocking(move || local_walk::all_below(&root)).await;
            let walked = walked.map_err(|error| StoreError::Thread { reason: error.to_string() })??;
            let locations = walked.iter().map(|path| self.local(&path.to_string_lossy(), path));
            return looked_up(locations.collect::<Result<_>>()?).await;
        }
        let depth = folder.path().parts().count();
        let mut found = folder.list().await?;
        let hidden = |object: &StoredObject| {
            object.location.path().parts().skip(depth).any(|part| part.as_ref().starts_with('.'))
        };
        found.retain(|object| !hidden(object));
        Ok(found)
    }

    async fn expand_local(
        &mut self,
        source: &str,
        path: &str,
        endings: &[&str],
    ) -> Result<Vec<StoredObject>> {
        if path.is_empty() {
            return Err(refused(source, "it is empty"));
        }
        let (path, endings) = (path.to_owned(), endings.iter().map(|ending| (*ending).to_owned()).collect());
        let walked = tokio::task::spawn_blocking(move || local_names(&path, endings)).await;
        let walked = walked.map_err(|error| StoreError::Thread { reason: error.to_string() })??;
        let mut locations = Vec::new();
        for alternative in walked {
            let mut found = Vec::new();
            for path in alternative {
                found.push(self.local(&path.to_string_lossy(), &path)?);
            }
            // By the store's own order.
            found.sort_by(|a, b| a.path().cmp(b.path()));
            locations.extend(found);
        }
        looked_up(locations).await
    }

    async fn expand_remote(&mut self, source: &str, endings: &[&str]) -> Result<Vec<StoredObject>> {
        let whole = self.parse(source)?;
        let (base, path) = split_base(source);
        // A URL's query is no part of a pattern.
        let query_at = path.find('?').filter(|_| is_web_address(base));
        let (path, query) = path.split_at(query_at.unwrap_or(path.len()));
        match whole.head().await {
            Ok(Some((bytes, etag))) => return Ok(vec![StoredObject { location: whole, bytes, etag }]),
            // Some stores refuse a look at what is not there.
            Err(error) if !is_remote_pattern(base, path) => return Err(error),
            _ => {}
        }
        let is_pattern = |text: &str| is_remote_pattern(base, text);
        let root = self.parse(&format!("{base}{query}"))?;
        let split = split(path, |before, segment, rest| {
            let place = root.join(&format!("{before}{segment}"));
            let literal = !is_pattern(segment) && !braces::begin_within(rest, segment.len());
            async move { literal || has_below(&place).await }
        })
        .await;
        if split.pattern.is_empty() {
            return self.in_remote_folder(&whole, endings).await;
        }
        let mut found = Vec::new();
        let below = |text: &str| match split.literal {
            "" => format!("{base}{text}{query}"),
            literal => format!("{base}{literal}/{text}{query}"),
        };
        let alternatives = braces::expand(split.pattern)?;
        if alternatives.len() > 1 && !alternatives.iter().any(|name| is_pattern(name)) {
            return self.named(source, alternatives.iter().map(|name| below(name)).collect(), endings).await;
        }
        for name in &alternatives {
            let name = name.trim_end_matches('/');
            match is_pattern(name) {
                true => found.extend(self.matching(&below(""), name, &below(name)).await?),
                false => found.extend(self.named(source, vec![below(name)], endings).await?),
            }
        }
        Ok(found)
    }

    /// Names without a pattern, each of an object or, where there is none, of a folder.
    async fn named(
        &mut self,
        source: &str,
        names: Vec<String>,
        endings: &[&str],
    ) -> Result<Vec<StoredObject>> {
        let locations: Vec<_> = names.iter().map(|name| self.parse(name)).collect::<Result<_>>()?;
        let heads = locations.clone().into_iter().map(|location| async move { location.head().await });
        let heads: Vec<_> = futures::stream::iter(heads).buffered(ASKED_FOR).try_collect().await?;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for (location, head) in locations.into_iter().zip(heads) {
            match head {
                Some((bytes, etag)) => found.push(StoredObject { location, bytes, etag }),
                None => match self.in_remote_folder(&location, endings).await {
                    Ok(inside) => found.extend(inside),
                    Err(StoreError::NotFound { location }) => missing.push(location),
                    Err(error) => return Err(error),
                },
            }
        }
        all_there(source, found, &missing)
    }

    /// The objects of a folder with one of these endings.
    async fn in_remote_folder(&mut self, folder: &Location, endings: &[&str]) -> Result<Vec<StoredObject>> {
        if is_web_address(&folder.base) {
            return Err(StoreError::NotFound { location: folder.to_string() });
        }
        let listing = folder.listed_directly().await?;
        let wanted = |meta: &ObjectMeta| has_ending(meta.location.filename().unwrap_or_default(), endings);
        let direct: Vec<_> = listing.objects.iter().filter(|meta| wanted(meta)).cloned().collect();
        if !direct.is_empty() {
            return Ok(folder.objects(direct));
        }
        if listing.objects.is_empty() && listing.common_prefixes.is_empty() {
            return Err(StoreError::NotFound { location: folder.to_string() });
        }
        let depth = folder.path().parts().count();
        let is_data = |meta: &ObjectMeta| {
            let mut folders: Vec<_> = meta.location.parts().skip(depth).collect();
            folders.pop();
            wanted(meta) && folders.iter().all(|part| is_data_folder(part.as_ref()))
        };
        let below: Vec<ObjectMeta> = folder.listed().await?.into_iter().filter(is_data).collect();
        match below.is_empty() {
            false => Ok(folder.objects(below)),
            true => Err(empty_folder(folder.to_string(), endings)),
        }
    }

    /// The objects below `prefix` that a pattern matches.
    async fn matching(&mut self, prefix: &str, pattern: &str, shown: &str) -> Result<Vec<StoredObject>> {
        let folder = self.parse(prefix)?;
        let compiled = compile(pattern)?;
        let found: Vec<ObjectMeta> = if pattern.contains('/') || pattern.contains("**") {
            folder.listed().await?
        } else {
            folder.listed_directly().await?.objects
        };
        let depth = folder.path().parts().count();
        let matches = |meta: &ObjectMeta| {
            let below: Vec<_> = meta.location.parts().skip(depth).collect();
            let below = below.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/");
            compiled.matches_with(&below, MATCHING) && !is_reject_list(&below)
        };
        let found: Vec<_> = found.into_iter().filter(matches).collect();
        match found.is_empty() {
            true => Err(StoreError::NoMatch { pattern: redacted(shown) }),
            false => Ok(folder.objects(found)),
        }
    }
}

/// Whether something is stored at or below a place.
async fn has_below(place: &Location) -> bool {
    let is_any = |listing: ListResult| !listing.objects.is_empty() || !listing.common_prefixes.is_empty();
    place.listed_directly().await.is_ok_and(is_any) || matches!(place.head().await, Ok(Some(_)))
}

/// The files of every alternative of a local source.
fn local_names(path: &str, endings: Vec<String>) -> Result<Vec<Vec<PathBuf>>> {
    let endings: Vec<&str> = endings.iter().map(String::as_str).collect();
    if std::fs::symlink_metadata(path).is_ok() {
        return Ok(vec![local_walk::named(FilePath::new(path), &endings)?]);
    }
    let (literal, pattern) = local_walk::split(path);
    if pattern.is_empty() {
        return Err(StoreError::NotFound { location: path.to_owned() });
    }
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in braces::expand(pattern)? {
        match local_walk::matching(&literal, &name, &endings)? {
            Walked::Found(paths) => found.push(paths),
            Walked::Missing(path) => missing.push(path.display().to_string()),
            Walked::NoMatch => {
                let pattern = literal.join(name).display().to_string();
                return Err(StoreError::NoMatch { pattern });
            }
        }
    }
    all_there(path, found, &missing)
}

/// All of a list of names; one that is missing is an error that says how many are.
fn all_there<T>(source: &str, found: Vec<T>, missing: &[String]) -> Result<Vec<T>> {
    match missing {
        [] => Ok(found),
        [one] => Err(StoreError::NotFound { location: one.clone() }),
        [first, others @ ..] => Err(StoreError::MissingFiles {
            first: first.clone(),
            others: others.len(),
            pattern: redacted(source),
        }),
    }
}

async fn looked_up(locations: Vec<Location>) -> Result<Vec<StoredObject>> {
    let look_up = |location: Location| async move {
        let Some((bytes, etag)) = location.head().await? else {
            return Err(StoreError::NotFound { location: location.to_string() });
        };
        Ok(StoredObject { location, bytes, etag })
    };
    futures::stream::iter(locations.into_iter().map(look_up)).buffered(ASKED_FOR).try_collect().await
}

/// What precedes a remote path, with its `/`, and the path.
fn split_base(source: &str) -> (&str, &str) {
    let host = source.find("://").map_or(0, |at| at + 3);
    let path = source[host..].find('/').map_or(source.len(), |at| host + at + 1);
    source.split_at(path)
}

/// Takes segments off a path as long as `is_literal`, which is told what precedes a segment and what begins
/// with it.
async fn split<'a, F: Future<Output = bool>>(
    path: &'a str,
    is_literal: impl Fn(&'a str, &'a str, &'a str) -> F,
) -> Split<'a> {
    let mut at = 0;
    while at < path.len() {
        let end = path[at..].find('/').map_or(path.len(), |slash| at + slash);
        if !is_literal(&path[..at], &path[at..end], &path[at..]).await {
            return Split { literal: path[..at].trim_end_matches('/'), pattern: &path[at..] };
        }
        at = (end + 1).min(path.len());
    }
    Split { literal: path, pattern: "" }
}
