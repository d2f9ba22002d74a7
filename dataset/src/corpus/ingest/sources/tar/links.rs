//! Members that are links to members before them.

use std::collections::BTreeMap;
use std::io::Read;

use blip2_store::Location;

use crate::corpus::ingest::fetch::ObjectReader;

/// Members that links may name; of an archive with more, those that came first.
const MAX_MEMBERS: usize = 1 << 20;

/// Where the members of an archive lie that is not packed.
pub(super) struct Links {
    location: Location,
    /// By the hash of the name: first byte and length.
    members: BTreeMap<[u8; 32], (u64, u64)>,
}

impl Links {
    pub(super) fn new(location: &Location) -> Self {
        Self { location: location.clone(), members: BTreeMap::new() }
    }

    /// The archive.
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// A member that was read at `start`.
    pub(super) fn saw(&mut self, name: &str, start: u64, bytes: u64) {
        if self.members.len() < MAX_MEMBERS {
            self.members.insert(hash(name), (start, bytes));
        }
    }

    /// Place of the member that `link` means by `target`: a name in the archive, or for a symbolic link one
    /// seen from the link's folder.
    pub(super) fn find(&self, link: &str, target: &str, symbolic: bool) -> Option<(u64, u64)> {
        let folder = link.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = if symbolic { format!("{folder}/{target}") } else { target.to_owned() };
        self.members.get(&hash(&target)).copied()
    }

    /// Reads a member again.
    pub(super) fn read(&self, (start, bytes): (u64, u64)) -> std::io::Result<Vec<u8>> {
        let (reader, _) = ObjectReader::start(&self.location, start..start.saturating_add(bytes));
        let mut content = Vec::new();
        reader.take(bytes).read_to_end(&mut content)?;
        match content.len() as u64 == bytes {
            true => Ok(content),
            false => Err(std::io::Error::other("a member that a link names is not there any more")),
        }
    }
}

/// Hash of a name without `.` and `..`.
fn hash(name: &str) -> [u8; 32] {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    *blake3::hash(parts.join("/").as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_from_the_archive_or_the_folder() {
        let mut links = Links::new(&Location::parse("/x.tar").unwrap());
        links.saw("./a/1.jpg", 512, 9);
        assert_eq!(links.find("b/2.jpg", "a/1.jpg", false), Some((512, 9)));
        assert_eq!(links.find("b/2.jpg", "../a/1.jpg", true), Some((512, 9)));
        assert_eq!(links.find("a/2.jpg", "./1.jpg", true), Some((512, 9)));
        assert_eq!(links.find("b/2.jpg", "1.jpg", true), None);
        assert_eq!(links.find("b/2.jpg", "1.jpg", false), None);
    }
}
