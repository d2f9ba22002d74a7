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

/// Said where there is no token.
const NO_TOKEN: &str = "this process has no token that could be asked for: give it --token-file, or let it listen on a \
                        loopback address and forward the port\n";

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

/// Who may see a page.
#[derive(Debug, Clone)]
pub(super) enum For {
    Everybody,
    /// Those who show the run's token.
    Members(Arc<str>),
    /// There is no token that could be shown.
    Nobody,
}

/// A page, and who may see it.
#[derive(Clone)]
struct Guarded {
    page: Arc<dyn Shown>,
    shown_to: For,
}

/// `/` and `/api/status`.
pub(super) fn routes(page: Arc<dyn Shown>, shown_to: For) -> Router {
    let guarded = Guarded { page, shown_to };
    Router::new().route("/", get(html)).route("/api/status", get(json)).with_state(guarded)
}

async fn html(State(guarded): State<Guarded>, headers: HeaderMap) -> Response {
    if let Some(refusal) = guarded.refuses(&headers) {
        return refusal;
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
    if let Some(refusal) = guarded.refuses(&headers) {
        return refusal;
    }
    let head = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (head, guarded.page.json()).into_response()
}

impl Guarded {
    /// The answer to those who may not see the page; the token is shown as a bearer's, or as the password of
    /// whatever user.
    fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        match &self.shown_to {
            For::Everybody => None,
            For::Members(token) => {
                let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
                let is_known = shown.and_then(shown_token).is_some_and(|shown| same_token(&shown, token));
                let asks = [(WWW_AUTHENTICATE, "Basic realm=\"the run's token as the password\"")];
                let refusal = || (StatusCode::UNAUTHORIZED, asks, "show the run's token\n").into_response();
                (!is_known).then(refusal)
            }
            For::Nobody => Some((StatusCode::FORBIDDEN, NO_TOKEN).into_response()),
        }
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

    /// The status of a refusal.
    fn refusal(shown_to: For, header: Option<&str>) -> Option<StatusCode> {
        let guarded = Guarded { page: Arc::new(LivePage::default()), shown_to };
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        guarded.refuses(&headers).map(|response| response.status())
    }

    #[test]
    fn who_shows_the_token_is_let_in_and_nobody_else() {
        let members = || For::Members("a long secret".into());
        assert_eq!(refusal(members(), Some("Bearer a long secret")), None);
        assert_eq!(refusal(members(), Some(&format!("Basic {}", STANDARD.encode("me:a long secret")))), None);
        for stranger in
            [None, Some("Bearer another"), Some("Bearer"), Some("Basic !!"), Some("a long secret")]
        {
            assert_eq!(refusal(members(), stranger), Some(StatusCode::UNAUTHORIZED), "{stranger:?}");
        }
        assert_eq!(refusal(For::Everybody, None), None);
        assert_eq!(refusal(For::Nobody, Some("Bearer ")), Some(StatusCode::FORBIDDEN));
    }
}
