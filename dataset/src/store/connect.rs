//! The clients of remote stores: their options, deadlines and retries, in one place.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

/// A connection that is not there after this long is tried anew.
const CONNECT_TIMEOUT: &str = "5s";
/// A request (its whole answer included) that takes longer is tried anew.
const REQUEST_TIMEOUT: &str = "60s";
/// Tries after the first one, and the time after which no other is begun.
const RETRIES: usize = 12;
const RETRY_DEADLINE: Duration = Duration::from_secs(120);
/// Waits between tries, drawn from a range that doubles: from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What is tried again: connections that fail or break, also in the middle of an answer, timeouts, 408, 429 and 5xx.
fn retries() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: FIRST_WAIT, max_backoff: LONGEST_WAIT, base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_DEADLINE }
}

/// A client for the store of `url`.
///
/// The environment's options (`AWS_*`, `GOOGLE_*`, `AZURE_*`) win over the deadlines here: `AWS_TIMEOUT=5m`.
pub(super) fn connect(url: &Url) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    // Fails when a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, _) = ObjectStoreScheme::parse(url)?;
    let options = options(url);
    /// The builder's own keys among the options; those of other stores are not its business.
    macro_rules! built {
        ($builder:ty, $url:expr) => {{
            let start = <$builder>::new().with_url($url).with_retry(retries());
            let laid = options.iter().fold(start, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
            Arc::new(laid.build()?) as Arc<dyn ObjectStore>
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder, url.as_str()),
        ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder, url.as_str()),
        ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder, url.as_str()),
        ObjectStoreScheme::Http => {
            let start = HttpBuilder::new().with_url(&url[..url::Position::BeforePath]).with_retry(retries());
            let laid =
                options.iter().fold(start, |builder, (key, value)| match ClientConfigKey::from_str(key) {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                });
            Arc::new(laid.build()?)
        }
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        _ => {
            let source = "use a path, file://, s3://, gs://, az:// or http(s)://".into();
            return Err(object_store::Error::Generic { store: "location", source });
        }
    })
}

/// The deadlines, and after them the environment variables of the URL's store. Only prefixed names count: a stray `TOKEN`
/// must not become a credential.
fn options(url: &Url) -> Vec<(String, String)> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let mut options: Vec<_> =
        [("connect_timeout", CONNECT_TIMEOUT), ("timeout", REQUEST_TIMEOUT)].map(owned).to_vec();
    if matches!(url.scheme(), "http" | "https") {
        options.extend((url.scheme() == "http").then(|| owned(("allow_http", "true"))));
        return options;
    }
    let ours = |name: &str| ["aws_", "google_", "azure_"].iter().any(|prefix| name.starts_with(prefix));
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.to_str()?.to_ascii_lowercase(), value.to_str()?.to_owned()))
    };
    let mut environment: Vec<_> =
        std::env::vars_os().filter_map(text).filter(|(name, _)| ours(name)).collect();
    environment.sort();
    options.extend(environment);
    options
}
