//! The run's token: how calls show it, and how it is compared.

use subtle::ConstantTimeEq;
use tonic::Request;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

/// Metadata in which a call shows the token, so that it is known before the first message is read.
pub const TOKEN_HEADER: &str = "blip2-token-bin";

/// Whether two tokens are equal, in time that depends on their lengths alone.
pub fn same_token(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

/// A call that shows the token.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(TOKEN_HEADER, value(token));
    request
}

/// The metadata of a call that shows the token, as HTTP headers.
pub fn token_header(token: &str) -> http::HeaderMap {
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(TOKEN_HEADER, value(token));
    metadata.into_headers()
}

/// The token that a call's headers show.
pub fn shown_token(headers: &http::HeaderMap) -> Option<String> {
    let shown = headers.get(TOKEN_HEADER)?;
    let metadata = MetadataMap::from_headers(http::HeaderMap::from_iter([(
        http::HeaderName::from_static(TOKEN_HEADER),
        shown.clone(),
    )]));
    let bytes = metadata.get_bin(TOKEN_HEADER)?.to_bytes().ok()?;
    String::from_utf8(bytes.to_vec()).ok()
}

fn value(token: &str) -> BinaryMetadataValue {
    BinaryMetadataValue::from_bytes(token.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_tokens_are_the_same() {
        assert!(same_token("", "") && same_token("abc", "abc"));
        assert!(!same_token("abc", "abd") && !same_token("abc", "ab") && !same_token("", "a"));
    }

    #[test]
    fn a_token_goes_through_the_headers_of_a_call() {
        for token in ["secret", "two words", "geheim: ÄÖÜ 秘密", ""] {
            assert_eq!(shown_token(&token_header(token)).as_deref(), Some(token));
            let headers = with_token((), token).metadata().clone().into_headers();
            assert_eq!(shown_token(&headers).as_deref(), Some(token));
        }
        assert_eq!(shown_token(&http::HeaderMap::new()), None);
        for nonsense in ["%%%", "A", "/w=="] {
            let header = (http::HeaderName::from_static(TOKEN_HEADER), nonsense.parse().unwrap());
            assert_eq!(shown_token(&http::HeaderMap::from_iter([header])), None, "{nonsense}");
        }
    }
}
