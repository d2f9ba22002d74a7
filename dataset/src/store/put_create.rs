//! The one write that decides anything: create-if-absent.

use bytes::Bytes;
use object_store::{Error as StoreError, PutMode, PutOptions, PutPayload};

use super::exclusive;
use super::location::Location;
use crate::error::Result;

/// Creates the object unless it exists: `Ok(false)` when it does. At most one of several writers gets `Ok(true)`.
///
/// Over a network the answer to a write that was done can be lost; the try after it then finds the object, and the writer
/// gets `Ok(false)` or an error for what is its own. Whoever must know reads the object back, whose content names its
/// writer.
///
/// # Errors
/// [`DatasetError::Store`](crate::error::DatasetError::Store).
pub async fn put_create(location: &Location, content: Bytes) -> Result<bool> {
    let options = PutOptions::from(PutMode::Create);
    match location.store.put_opts(&location.path, PutPayload::from_bytes(content.clone()), options).await {
        Ok(_) => Ok(true),
        Err(StoreError::AlreadyExists { .. }) => Ok(false),
        Err(error) if location.is_local() && exclusive::needs_other_way(&error) => {
            exclusive::create(location, content).await
        }
        Err(error) => Err(location.failed("write", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn local_objects_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a folder/ünï#1/100%");
        let root = Location::parse(odd.to_str().unwrap()).unwrap();
        let object = root.join("deep/x.bin");
        assert!(object.read().await.unwrap().is_none());
        assert!(object.head().await.unwrap().is_none());
        assert!(put_create(&object, Bytes::from_static(b"one")).await.unwrap());
        assert!(!put_create(&object, Bytes::from_static(b"two")).await.unwrap());
        assert_eq!(object.read().await.unwrap().unwrap().as_ref(), b"one");
        assert_eq!(std::fs::read(odd.join("deep/x.bin")).unwrap(), b"one");
        object.put(Bytes::from_static(b"three")).await.unwrap();
        assert_eq!(object.head().await.unwrap().unwrap().0, 5);
        let listed = root.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].location.to_string(), object.to_string());
        assert_eq!(listed[0].bytes, 5);
        object.delete().await.unwrap();
        object.delete().await.unwrap();
        assert!(root.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_of_many_creators_wins() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse(folder.path().join("epoch").to_str().unwrap()).unwrap();
        let attempts = (0..8u8).map(|i| put_create(&location, Bytes::from(vec![i; 1000])));
        let won = futures::future::try_join_all(attempts).await.unwrap();
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }
}
