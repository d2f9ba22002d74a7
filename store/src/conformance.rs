//! What every store does, whichever it is: the rest of the program relies on this and on nothing else.
//!
//! Each function takes a folder of its own with nothing in it, and panics where the store does otherwise.

use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutPayload};
use tokio::task::JoinSet;

use super::{Location, put_create};

/// Writers of a race, and races.
const WRITERS: u8 = 8;
const RACES: u8 = 20;

/// Names as people give them: with spaces, accents composed and apart, and characters that mean something in
/// URLs, shells and patterns.
const ODD_NAMES: [&str; 13] = [
    ".hidden",
    "100%.bin",
    "[1]{2}~*.bin",
    "a b/x.bin",
    "a%20b/x.bin",
    "e\u{301}.bin",
    "plus+and&semicolon;.bin",
    "q?x=1.bin",
    "quote'\"s.bin",
    "\u{e9}.bin",
    "ünï#1/x.bin",
    "…/x.bin",
    "😀.bin",
];

/// All that a store which can be written does; `root` is an empty folder.
pub(crate) async fn every_store(root: &Location) {
    what_is_not_there_is_absent(&root.join("absent")).await;
    an_object_is_created_once(&root.join("created")).await;
    one_of_many_creators_wins(&root.join("races")).await;
    what_is_created_is_seen_whole(&root.join("whole")).await;
    a_write_replaces(&root.join("replaced")).await;
    what_is_replaced_is_seen_whole(&root.join("turns")).await;
    a_listing_is_sorted_whole_and_of_its_folder_alone(&root.join("listed")).await;
    names_are_what_was_written(&root.join("odd")).await;
    only_what_is_named_is_removed(&root.join("removed")).await;
    large_objects_are_one_object(&root.join("large")).await;
    let objects =
        [("a.bin", content(1, 1000)), ("deep/er/b.bin", content(2, 70_000)), ("none", Bytes::new())];
    let folder = root.join("read");
    for (name, content) in &objects {
        folder.join(name).put(content.clone()).await.unwrap();
    }
    objects_are_read(&folder, &objects).await;
}

/// What also holds of a store that can only be read; `folder` has these objects and no other.
pub(crate) async fn objects_are_read(folder: &Location, objects: &[(&str, Bytes)]) {
    for (name, content) in objects {
        let object = folder.join(name);
        let length = content.len() as u64;
        assert_eq!(object.read().await.unwrap().as_ref(), Some(content), "{object}");
        assert_eq!(object.head().await.unwrap().map(|(bytes, _)| bytes), Some(length), "{object}");
        let ranges = [0..1, 7..99, 90..200, length.saturating_sub(1)..length];
        let ranges: Vec<_> =
            ranges.into_iter().filter(|range| range.end <= length && !range.is_empty()).collect();
        let read = object.store().get_ranges(object.path(), &ranges).await.unwrap();
        for (range, read) in ranges.iter().zip(read) {
            assert_eq!(read, content[range.start as usize..range.end as usize], "{object} {range:?}");
        }
    }
    what_is_not_there_is_absent(&folder.join("not/there")).await;
}

async fn what_is_not_there_is_absent(object: &Location) {
    assert!(object.read().await.unwrap().is_none(), "{object}");
    assert!(object.head().await.unwrap().is_none(), "{object}");
    let range = object.store().get_range(object.path(), 0..1).await;
    assert!(matches!(range, Err(object_store::Error::NotFound { .. })), "{object}: {range:?}");
}

async fn an_object_is_created_once(folder: &Location) {
    let object = folder.join("epoch");
    assert!(put_create(&object, content(1, 10)).await.unwrap());
    assert!(!put_create(&object, content(2, 20)).await.unwrap());
    assert!(!put_create(&object, content(1, 10)).await.unwrap(), "the same content is no exception");
    assert_eq!(object.read().await.unwrap().unwrap(), content(1, 10));
    object.delete().await.unwrap();
    assert!(put_create(&object, content(2, 20)).await.unwrap(), "what was removed is created anew");
    object.put(content(3, 5)).await.unwrap();
    assert!(!put_create(&object, content(2, 20)).await.unwrap(), "what was written is there too");
    assert_eq!(object.read().await.unwrap().unwrap(), content(3, 5));
}

async fn one_of_many_creators_wins(folder: &Location) {
    for race in 0..RACES {
        let object = folder.join(&format!("epoch-{race}"));
        let mut attempts = JoinSet::new();
        for writer in 0..WRITERS {
            let object = object.clone();
            attempts.spawn(async move {
                let won = put_create(&object, content(writer, 1000)).await.unwrap();
                won.then_some(writer)
            });
        }
        let winners: Vec<u8> = attempts.join_all().await.into_iter().flatten().collect();
        let [winner] = winners[..] else { panic!("race {race} of {folder}: {winners:?} won") };
        assert_eq!(object.read().await.unwrap().unwrap(), content(winner, 1000), "race {race} of {folder}");
    }
}

async fn what_is_created_is_seen_whole(folder: &Location) {
    for number in 0..RACES {
        let object = folder.join(&format!("epoch-{number}"));
        let wanted = content(number, 500_000);
        let mut writer = JoinSet::new();
        let (place, whole) = (object.clone(), wanted.clone());
        writer.spawn(async move { put_create(&place, whole).await.unwrap() });
        let created = loop {
            if let Some(created) = writer.try_join_next() {
                break created.unwrap();
            }
            if let Some(seen) = object.read().await.unwrap() {
                assert!(seen == wanted, "{object}: {} bytes are there", seen.len());
            }
        };
        assert!(created);
        assert!(object.read().await.unwrap() == Some(wanted));
    }
}

async fn a_write_replaces(folder: &Location) {
    let object = folder.join("latest");
    for (number, length) in [(1, 500), (2, 20_000), (3, 0), (4, 7)] {
        object.put(content(number, length)).await.unwrap();
        assert_eq!(object.read().await.unwrap().unwrap(), content(number, length));
        assert_eq!(object.head().await.unwrap().unwrap().0, length as u64);
    }
    assert_eq!(folder.list().await.unwrap().len(), 1);
}

async fn what_is_replaced_is_seen_whole(folder: &Location) {
    let object = folder.join("status");
    let contents = [content(1, 300_000), content(2, 200_000)];
    object.put(contents[0].clone()).await.unwrap();
    let mut writer = JoinSet::new();
    let (place, turns) = (object.clone(), contents.clone());
    writer.spawn(async move {
        for turn in 0..usize::from(RACES) {
            place.put(turns[turn % 2].clone()).await.unwrap();
        }
    });
    loop {
        if let Some(written) = writer.try_join_next() {
            break written.unwrap();
        }
        let seen = object.read().await.unwrap().expect("it is there all the time");
        assert!(contents.contains(&seen), "{object}: {} bytes are there", seen.len());
    }
}

async fn a_listing_is_sorted_whole_and_of_its_folder_alone(folder: &Location) {
    let root = folder.join("a");
    let inside = ["a/0.bin", "a/10.bin", "a/9.bin", "a/B.bin", "a/b/0.bin", "a/b/c/1.bin", "a/z.txt"];
    let beside = ["a.bin", "a-b/0.bin", "aa/0.bin", "b/a/0.bin"];
    for (number, name) in (0u8..).zip(inside.iter().chain(&beside).rev()) {
        folder.join(name).put(content(number, usize::from(number))).await.unwrap();
    }
    let listed = root.list().await.unwrap();
    let places: Vec<_> = listed.iter().map(|object| object.location.path().to_string()).collect();
    let wanted: Vec<_> = inside.iter().map(|name| folder.join(name).path().to_string()).collect();
    assert_eq!(places, wanted);
    for object in &listed {
        let (bytes, etag) = object.location.head().await.unwrap().unwrap();
        let bare = |tag: &Option<String>| tag.as_ref().map(|tag| tag.trim_matches('"').to_owned());
        assert_eq!((object.bytes, bare(&object.etag)), (bytes, bare(&etag)), "{}", object.location);
    }
    let names = async |pattern: &str| -> Vec<String> {
        let found = root.list_matching(pattern).await.unwrap();
        found.iter().map(|object| object.location.file_name().to_owned()).collect()
    };
    assert_eq!(names("*.bin").await, ["0.bin", "10.bin", "9.bin", "B.bin"]);
    assert_eq!(names("1*").await, ["10.bin"]);
    assert!(folder.join("none").list().await.unwrap().is_empty());
    assert_eq!(folder.list().await.unwrap().len(), inside.len() + beside.len());
}

async fn names_are_what_was_written(folder: &Location) {
    for (number, name) in (1u8..).zip(ODD_NAMES) {
        folder.join(name).put(content(number, 10)).await.unwrap();
    }
    for (number, name) in (1u8..).zip(ODD_NAMES) {
        let object = folder.join(name);
        assert_eq!(object.read().await.unwrap(), Some(content(number, 10)), "{name}");
    }
    let listed = folder.list().await.unwrap();
    let below = folder.path().as_ref().len() + 1;
    let names: Vec<_> =
        listed.iter().map(|object| object.location.path().as_ref()[below..].to_owned()).collect();
    assert_eq!(names, ODD_NAMES);
    for (object, number) in listed.iter().zip(1u8..) {
        assert_eq!(object.location.read().await.unwrap(), Some(content(number, 10)), "{}", object.location);
    }
}

async fn only_what_is_named_is_removed(folder: &Location) {
    for name in ["a", "a.bin", "b/a.bin"] {
        folder.join(name).put(content(1, 1)).await.unwrap();
    }
    let object = folder.join("a.bin");
    object.delete().await.unwrap();
    object.delete().await.unwrap();
    folder.join("never").delete().await.unwrap();
    what_is_not_there_is_absent(&object).await;
    assert_eq!(folder.list().await.unwrap().len(), 2);
}

async fn large_objects_are_one_object(folder: &Location) {
    let (once, parts) = (folder.join("once.bin"), folder.join("parts.bin"));
    let whole = content(9, 11_000_000);
    once.put(whole.clone()).await.unwrap();
    let mut upload = parts.store().put_multipart(parts.path()).await.unwrap();
    for part in whole.chunks(5 << 20) {
        upload.put_part(PutPayload::from(part.to_vec())).await.unwrap();
    }
    assert!(parts.read().await.unwrap().is_none(), "nothing is seen of it before it is complete");
    upload.complete().await.unwrap();
    for object in [once, parts] {
        assert!(object.read().await.unwrap().as_ref() == Some(&whole), "{object}");
        // Across the ends of parts, and the last byte.
        let ranges = [7..4099, 5_242_000..5_244_000, 10_999_999..11_000_000];
        let read = object.store().get_ranges(object.path(), &ranges).await.unwrap();
        for (range, read) in ranges.iter().zip(read) {
            assert!(read == whole[range.start as usize..range.end as usize], "{object} {range:?}");
        }
    }
}

/// `length` bytes that no other number has.
fn content(number: u8, length: usize) -> Bytes {
    let byte = |at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8 ^ number;
    // Contents are shorter than 2^32 bytes.
    (0..length as u32).map(byte).collect()
}
