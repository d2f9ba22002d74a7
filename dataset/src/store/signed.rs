//! Objects of a plain HTTP server whose URLs are signed for reading.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::http::HttpStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A signature is for one method, GET: length and tag are asked for by a range of one byte.
#[derive(Debug)]
pub(super) struct SignedObjects(HttpStore);

impl SignedObjects {
    pub(super) fn new(store: HttpStore) -> Self {
        Self(store)
    }
}

impl fmt::Display for SignedObjects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("signed URLs")
    }
}

#[async_trait]
impl ObjectStore for SignedObjects {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
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

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}
