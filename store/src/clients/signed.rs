//! Objects of a plain HTTP server whose URLs are signed for reading.

use async_trait::async_trait;
use object_store::http::HttpStore;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectStore as _, Result};

use super::around::{Around, Otherwise};

/// A signature is for one method, GET: length and tag are asked for by a range of one byte.
#[derive(Debug)]
pub(crate) struct SignedObjects(HttpStore);

impl SignedObjects {
    pub(crate) fn store(within: HttpStore) -> Around<Self> {
        Around(Self(within))
    }
}

#[async_trait]
impl Otherwise for SignedObjects {
    type Within = HttpStore;

    fn within(&self) -> &HttpStore {
        &self.0
    }

    async fn get(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
        if !options.head {
            return self.0.get_opts(path, options).await;
        }
        let head = options.clone();
        options.head = false;
        options.range = Some(GetRange::Bounded(0..1));
        match self.0.get_opts(path, options).await {
            // A server without ranges, or an object without bytes: HEAD is all that is left.
            Err(Error::NotSupported { .. } | Error::Generic { .. }) => self.0.get_opts(path, head).await,
            answer => answer,
        }
    }
}
