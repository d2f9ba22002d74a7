//! A remote store whose answers are counted.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, MultipartUpload, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

use super::around::{Around, Otherwise};
use crate::requests::{Operation, count};

/// A store whose answers are counted.
#[derive(Debug)]
pub(super) struct Counted(Arc<dyn ObjectStore>);

impl Counted {
    /// The store, counted.
    pub(super) fn store(within: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Around(Self(within)))
    }
}

#[async_trait]
impl Otherwise for Counted {
    type Within = Arc<dyn ObjectStore>;

    fn within(&self) -> &Self::Within {
        &self.0
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let operation = match options.mode {
            PutMode::Create => Operation::Create,
            _ => Operation::Put,
        };
        let answer = self.0.put_opts(path, payload, options).await;
        count(operation, &answer);
        answer
    }

    async fn put_in_pieces(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let answer = self.0.put_multipart_opts(path, options).await;
        count(Operation::PutInPieces, &answer);
        answer
    }

    async fn get(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let answer = self.0.get_opts(path, options).await;
        count(operation, &answer);
        answer
    }

    async fn ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let answer = self.0.get_ranges(path, ranges).await;
        count(Operation::GetRanges, &answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;
    use crate::requests::counts;

    fn counted(operation: &str, outcome: &str) -> u64 {
        let counts = counts();
        let found = counts.iter().find(|(op, ended, _)| (*op, *ended) == (operation, outcome));
        found.map_or(0, |(_, _, count)| *count)
    }

    #[tokio::test]
    async fn answers_are_counted_by_how_they_ended() {
        let store = Counted::store(Arc::new(InMemory::new()));
        let path = Path::from("a");
        let cases =
            [("get", "absent"), ("create", "ok"), ("create", "exists"), ("get", "ok"), ("head", "ok")];
        let before = cases.map(|(op, ended)| counted(op, ended));
        assert!(store.get(&path).await.is_err());
        for _ in 0..2 {
            let _ = store.put_opts(&path, "x".into(), PutOptions::from(PutMode::Create)).await;
        }
        store.get(&path).await.unwrap();
        store.head(&path).await.unwrap();
        // Other tests of this process count too.
        for (case, before) in cases.iter().zip(before) {
            assert!(counted(case.0, case.1) > before, "{case:?}");
        }
    }
}
