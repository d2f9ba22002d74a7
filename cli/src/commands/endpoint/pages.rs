//! The pages beside the metrics, for those who may see them.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blip2_proto::token::same_token;

use crate::live_page::LivePage;
use crate::work_page::WorkPage;

/// Read anew after ten seconds.
const REFRESH: (HeaderName, &str) = (HeaderName::from_static("refresh"), "10");
/// A page with its own style and pictures, and nothing else.
const NOTHING_ELSE: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// What is shown to people and to programs.
pub(crate) trait Shown: Send + Sync + 'static {
    /// The page.
    fn html(&self) -> String;
    /// The same as JSON.
    fn json(&self) -> String;
}

impl Shown for LivePage {
    fn html(&self) -> String {
        self.html()
    }

    fn json(&self) -> String {
        self.json()
    }
}

impl Shown for WorkPage {
    fn html(&self) -> String {
        self.html()
    }

    fn json(&self) -> String {
        self.json()
    }
}

/// A page, and who may see it.
#[derive(Clone)]
pub(super) struct Guarded {
    page: Arc<dyn Shown>,
    /// Asked of whoever comes, if there is one.
    token: Option<Arc<str>>,
}

/// `/` and `/api/status`, for those who show `token`, or for everybody.
pub(super) fn routes(page: Arc<dyn Shown>, token: Option<&str>) -> Router {
    let guarded = Guarded { page, token: token.map(Arc::from) };
    Router::new().route("/", get(html)).route("/api/status", get(json)).with_state(guarded)
}

async fn html(State(guarded): State<Guarded>, headers: HeaderMap) -> Response {
    if !guarded.admits(&headers) {
        return refused();
    }
    let head = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, NOTHING_ELSE),
        (CACHE_CONTROL, "no-store"),
        REFRESH,
    ];
    (head, guarded.page.html()).into_response()
}

async fn json(State(guarded): State<Guarded>, headers: HeaderMap) -> Response {
    if !guarded.admits(&headers) {
        return refused();
    }
    let head = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (head, guarded.page.json()).into_response()
}

fn refused() -> Response {
    let asks = [(WWW_AUTHENTICATE, "Basic realm=\"the run's token as the password\"")];
    (StatusCode::UNAUTHORIZED, asks, "show the run's token\n").into_response()
}

impl Guarded {
    /// Whether the token is shown: as a bearer's, or as the password of whatever user.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(shown_token);
        shown.is_some_and(|shown| same_token(&shown, token))
    }
}

fn shown_token(header: &str) -> Option<String> {
    match header.split_once(' ')? {
        ("Bearer", token) => Some(token.trim().to_owned()),
        ("Basic", encoded) => {
            let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
            decoded.split_once(':').map(|(_, password)| password.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(header: Option<&str>) -> bool {
        let guarded = Guarded { page: Arc::new(LivePage::default()), token: Some("a long secret".into()) };
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        guarded.admits(&headers)
    }

    #[test]
    fn who_shows_the_token_is_let_in_and_nobody_else() {
        assert!(admits(Some("Bearer a long secret")));
        assert!(admits(Some(&format!("Basic {}", STANDARD.encode("me:a long secret")))));
        for stranger in
            [None, Some("Bearer another"), Some("Bearer"), Some("Basic !!"), Some("a long secret")]
        {
            assert!(!admits(stranger), "{stranger:?}");
        }
        let open = Guarded { page: Arc::new(LivePage::default()), token: None };
        assert!(open.admits(&HeaderMap::new()));
    }
}
