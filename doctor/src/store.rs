//! Whether the run's store can be reached and decides between writers, and how its clock stands to this one.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use blip2_store::error::StoreError;
use blip2_store::{Location, put_create};
use bytes::Bytes;

use crate::check::{Check, Finding};

/// Seconds by which clocks may differ; beyond the second number signed requests and certificates begin to
/// fail.
const CLOCKS: [f64; 2] = [5.0, 60.0];

const STORE: Check = Check {
    name: "store",
    asks: "can objects be written to run.root, read and removed?",
    remedy: "name a run.root that this machine can write to; for a bucket see credentials, region and endpoint in \
             docs/storage.md",
};
const CONDITIONAL_WRITE: Check = Check {
    name: "conditional write",
    asks: "does one alone of two writers create an object?",
    remedy: "use a store with conditional writes (If-None-Match): without them two coordinators could lead a run; \
             docs/storage.md lists stores",
};
const CLOCK: Check = Check {
    name: "clock",
    asks: "do this machine's clock and the store's agree?",
    remedy: "set this machine's clock (chrony, systemd-timesyncd): stores refuse signed requests of another time",
};
/// Those of this module.
pub const CHECKS: &[&Check] = &[&STORE, &CONDITIONAL_WRITE, &CLOCK];

/// The object that is written and removed, as the checks use it.
trait Probe {
    /// Creates it unless it exists.
    async fn create(&self, content: &'static str) -> Result<bool, StoreError>;
    /// Its content.
    async fn read(&self) -> Result<Option<Bytes>, StoreError>;
    /// Seconds since 1970 at which the store says that it was written.
    async fn modified(&self) -> Result<Option<f64>, StoreError>;
    /// Removes it.
    async fn remove(&self) -> Result<(), StoreError>;
}

impl Probe for Location {
    async fn create(&self, content: &'static str) -> Result<bool, StoreError> {
        put_create(self, Bytes::from_static(content.as_bytes())).await
    }

    async fn read(&self) -> Result<Option<Bytes>, StoreError> {
        Location::read(self).await
    }

    async fn modified(&self) -> Result<Option<f64>, StoreError> {
        Ok(Location::modified(self).await?.map(|milliseconds| milliseconds as f64 / 1e3))
    }

    async fn remove(&self) -> Result<(), StoreError> {
        self.delete().await
    }
}

/// Looks at the store that a run's `root` is in, with an object of this name; `folder` is the root where it
/// is a folder of this machine.
pub async fn examine(root: &str, folder: Option<&Path>, name: &str) -> Vec<Finding> {
    if root.is_empty() {
        return vec![STORE.red("run.root is empty")];
    }
    let location = match Location::parse(root) {
        Ok(location) => location,
        Err(error) => return vec![STORE.red(error.to_string())],
    };
    let made = MissingFolders::of(folder.unwrap_or(Path::new("")));
    let findings = probe(&location.join(name), &location.to_string(), now()).await;
    made.remove();
    findings
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "compared with the store's clock, and shown")]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Asks with one object, which is removed again.
async fn probe(object: &impl Probe, place: &str, now: f64) -> Vec<Finding> {
    let writers = tokio::join!(object.create("one"), object.create("other"));
    let findings = match writers {
        (Err(error), _) | (_, Err(error)) => vec![STORE.red(error.to_string())],
        (Ok(one), Ok(other)) => written(object, (one, other), now).await,
    };
    let removed = object.remove().await;
    if findings.iter().any(|finding| finding.name == STORE.name) {
        // What cannot be written need not be removed.
        return findings;
    }
    let store = match removed {
        Ok(()) => STORE.green(format!("{place}: an object was written, read and removed")),
        Err(error) => STORE.red(format!("the probe stays behind: {error}")),
    };
    [vec![store], findings].concat()
}

/// What became of two writes at a time.
async fn written(object: &impl Probe, created: (bool, bool), now: f64) -> Vec<Finding> {
    let content = match object.read().await {
        Ok(content) => content.unwrap_or_default(),
        Err(error) => return vec![STORE.red(error.to_string())],
    };
    let conditional = match created {
        (true, true) => CONDITIONAL_WRITE.red("two writers both created one object"),
        (false, false) if !content.is_empty() => {
            CONDITIONAL_WRITE.yellow("the answer to the write that counts was lost on its way: ask again")
        }
        (false, false) => {
            CONDITIONAL_WRITE.red("neither of two writers created an object that was not there")
        }
        (one, _) if content != (if one { "one" } else { "other" }) => {
            CONDITIONAL_WRITE.red("one of two writers created the object, and the other's content is in it")
        }
        _ => CONDITIONAL_WRITE.green("one of two writers created the object, and its content is there"),
    };
    let clock = match object.modified().await {
        Ok(Some(modified)) => clock(modified - now),
        Ok(None) => CLOCK.yellow("the store does not say when the object was written"),
        Err(error) => CLOCK.yellow(error.to_string()),
    };
    vec![conditional, clock]
}

/// Seconds that the store's clock is ahead.
fn clock(ahead: f64) -> Finding {
    let words =
        format!("the store's clock is {:.1} s {}", ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead" });
    match ahead.abs() {
        apart if apart <= CLOCKS[0] => CLOCK.green(words),
        apart if apart <= CLOCKS[1] => CLOCK.yellow(words),
        _ => CLOCK.red(words),
    }
}

/// Folders that a write to a place of this machine makes.
struct MissingFolders(Vec<PathBuf>);

impl MissingFolders {
    /// Those of a root that are not there, the innermost first.
    fn of(folder: &Path) -> Self {
        let missing =
            folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !is_there(folder));
        Self(missing.map(Path::to_owned).collect())
    }

    /// Removes those that are empty.
    fn remove(self) {
        for folder in self.0 {
            // What is no longer empty is another's.
            if std::fs::remove_dir(&folder).is_err() {
                return;
            }
        }
    }
}

fn is_there(folder: &Path) -> bool {
    std::fs::symlink_metadata(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::check::State;

    /// A store with a fault.
    #[derive(Default)]
    struct Faulty {
        content: Mutex<Option<&'static str>>,
        /// It overwrites, and says that it created.
        overwrites: bool,
        /// It refuses all writes, though it says otherwise of none.
        creates_nothing: bool,
        /// It keeps what the loser wrote.
        keeps_the_loser: bool,
        stays: bool,
        unreachable: bool,
        ahead: f64,
    }

    impl Faulty {
        fn fault() -> StoreError {
            StoreError::Location { location: "memory".into(), reason: "a planted fault".into() }
        }
    }

    impl Probe for Faulty {
        async fn create(&self, content: &'static str) -> Result<bool, StoreError> {
            if self.unreachable {
                return Err(Self::fault());
            }
            let mut held = self.content.lock().unwrap();
            let creates = !self.creates_nothing && (held.is_none() || self.overwrites);
            if creates || self.keeps_the_loser {
                *held = Some(content);
            }
            Ok(creates)
        }

        async fn read(&self) -> Result<Option<Bytes>, StoreError> {
            Ok(self.content.lock().unwrap().map(|text| Bytes::from_static(text.as_bytes())))
        }

        async fn modified(&self) -> Result<Option<f64>, StoreError> {
            Ok(Some(1000.0 + self.ahead))
        }

        async fn remove(&self) -> Result<(), StoreError> {
            match self.stays {
                true => Err(Self::fault()),
                false => Ok(()),
            }
        }
    }

    async fn states(store: Faulty) -> Vec<(&'static str, State)> {
        let findings = probe(&store, "memory", 1000.0).await;
        findings.into_iter().map(|finding| (finding.name, finding.state)).collect()
    }

    #[tokio::test]
    async fn a_store_that_decides_is_green() {
        let green = [("store", State::Green), ("conditional write", State::Green), ("clock", State::Green)];
        assert_eq!(states(Faulty::default()).await, green);
        let real = Location::parse("memory:///doctor/probe").unwrap();
        let findings = probe(&real, "memory", now()).await;
        assert!(findings.iter().all(|finding| finding.state == State::Green), "{findings:?}");
        assert_eq!(Location::read(&real).await.unwrap(), None);
    }

    #[tokio::test]
    async fn stores_that_do_not_decide_are_red() {
        let of = |store| async move { states(store).await[1] };
        let red = ("conditional write", State::Red);
        assert_eq!(of(Faulty { overwrites: true, ..Faulty::default() }).await, red);
        assert_eq!(of(Faulty { creates_nothing: true, ..Faulty::default() }).await, red);
        assert_eq!(of(Faulty { keeps_the_loser: true, ..Faulty::default() }).await, red);
        // As over a network, where an answer is lost and the try after it finds the object.
        let lost = Faulty { creates_nothing: true, keeps_the_loser: true, ..Faulty::default() };
        assert_eq!(of(lost).await, ("conditional write", State::Yellow));
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_written_or_cleaned_is_red() {
        assert_eq!(states(Faulty { unreachable: true, ..Faulty::default() }).await, [("store", State::Red)]);
        assert_eq!(states(Faulty { stays: true, ..Faulty::default() }).await[0], ("store", State::Red));
        assert_eq!(examine("", None, "probe").await[0].state, State::Red);
        assert_eq!(examine("ftp://host/run", None, "probe").await[0].state, State::Red);
    }

    #[tokio::test]
    async fn clocks_that_differ_are_seen() {
        let of = |ahead| async move { states(Faulty { ahead, ..Faulty::default() }).await[2].1 };
        assert_eq!(of(-4.0).await, State::Green);
        assert_eq!(of(30.0).await, State::Yellow);
        assert_eq!(of(-61.0).await, State::Red);
    }

    #[tokio::test]
    async fn folders_that_were_there_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let findings = examine(&root.display().to_string(), Some(&root), "probe").await;
        assert!(findings.iter().all(|finding| finding.state == State::Green), "{findings:?}");
        assert!(folder.path().join("a").is_dir() && !root.exists());
    }
}
