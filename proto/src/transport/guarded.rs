//! A service behind the token: who has not shown it says little.

use std::convert::Infallible;
use std::future::Ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use super::gate::Connection;
use crate::token::{same_token, shown_token};

/// A service in two editions: for calls that show the run's token in their headers, or come over a connection
/// over which it was shown, and for all others, which may take small messages only.
///
/// The token in the messages is still the service's to check; it calls [`authenticate`] when it is right.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    token: Arc<str>,
    members: S,
    strangers: S,
}

impl<S> Guarded<S> {
    /// `members` and `strangers` differ in what they take.
    pub fn new(token: &str, members: S, strangers: S) -> Self {
        Self { token: token.into(), members, strangers }
    }
}

/// Takes note that the token was shown over the connection of a request with these extensions.
pub fn authenticate(extensions: &http::Extensions) {
    if let Some(connection) = extensions.get::<Connection>() {
        connection.authenticate();
    }
}

/// Whether it was.
pub fn is_authenticated(extensions: &http::Extensions) -> bool {
    extensions.get::<Connection>().is_some_and(Connection::is_authenticated)
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> tower::Service<Request<Body>> for Guarded<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.members.poll_ready(context) {
            Poll::Ready(_) => self.strangers.poll_ready(context),
            Poll::Pending => Poll::Pending,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shown = shown_token(request.headers()).is_some_and(|shown| same_token(&shown, &self.token));
        if shown {
            authenticate(request.extensions());
        }
        if shown || is_authenticated(request.extensions()) {
            return Either::Left(self.members.call(request));
        }
        match request.extensions().get::<Connection>() {
            Some(connection) if !connection.may_call() => {
                let status = Status::resource_exhausted("too many calls that do not show the run's token");
                Either::Right(std::future::ready(Ok(status.into_http())))
            }
            _ => Either::Left(self.strangers.call(request)),
        }
    }
}
