//! Clients whose failed tries are counted: a store's client makes a request several times, and says only how
//! it ended.

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Result};

use crate::requests::{Cause, count_failed_try};

/// Makes such clients.
#[derive(Debug, Default)]
pub(super) struct CountedTries(ReqwestConnector);

#[derive(Debug)]
struct Counting(HttpClient);

impl HttpConnector for CountedTries {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Counting(self.0.connect(options)?)))
    }
}

#[async_trait]
impl HttpService for Counting {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await.map_err(noted)?;
        if let Some(cause) = cause_of_status(response.status().as_u16()) {
            count_failed_try(cause);
        }
        // An answer that breaks off is asked for again from there.
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(noted))))
    }
}

fn noted(error: HttpError) -> HttpError {
    count_failed_try(match error.kind() {
        HttpErrorKind::Connect => Cause::Unreachable,
        HttpErrorKind::Timeout => Cause::Timeout,
        _ => Cause::Broken,
    });
    error
}

/// Why a request that is answered so is made again, if it is.
fn cause_of_status(status: u16) -> Option<Cause> {
    match status {
        408 => Some(Cause::Timeout),
        429 | 503 => Some(Cause::Busy),
        500..600 => Some(Cause::Server),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use blip2_test_server::{Server, Site};

    use crate::Location;
    use crate::requests::failed_tries;

    fn counted(cause: &str) -> u64 {
        failed_tries().into_iter().find(|(name, _)| *name == cause).map_or(0, |(_, count)| count)
    }

    /// Reads an object of this size from such a server, with the tries it takes.
    async fn read(site: Site, length: usize) {
        let files = BTreeMap::from([("/a".to_owned(), vec![7; length])]);
        let server = Server::start(Site { files, ..site }).await;
        let location = Location::parse(&format!("{}/a", server.url)).unwrap();
        assert_eq!(location.read().await.unwrap().unwrap().len(), length);
        assert!(server.requests() > 1, "it was tried again");
    }

    #[tokio::test]
    async fn tries_that_fail_are_counted_by_their_cause() {
        let causes = ["busy", "server", "broken"];
        let before = causes.map(counted);
        let refusal = |number| match number {
            1 => Some("503 Slow Down"),
            2 => Some("500 Internal Server Error"),
            _ => None,
        };
        read(Site { refusal, ..Site::default() }, 10).await;
        read(Site { cut: Some((1000, 1)), ..Site::default() }, 100_000).await;
        // Other tests of this process count too.
        for (cause, before) in causes.into_iter().zip(before) {
            assert!(counted(cause) > before, "{cause}");
        }
    }

    #[test]
    fn answers_that_stand_are_no_failed_tries() {
        for status in [200, 206, 301, 304, 400, 401, 403, 404, 409, 412, 416] {
            assert_eq!(super::cause_of_status(status), None, "{status}");
        }
    }
}
