//! The clients of remote stores: their options, deadlines and retries, in one place.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;
use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig,
};
use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use url::{Position, Url};

use super::counted::Counted;
use super::credentials;
use super::signed::SignedObjects;
use super::tries::CountedTries;

/// A connection that is not there after this long is tried anew.
const CONNECT_TIMEOUT: &str = "5s";
/// A request (its whole answer included) that takes longer is tried anew.
const REQUEST_TIMEOUT: &str = "60s";
/// The same for a whole file, of which each piece must come within the other.
const LONG_TIMEOUT: &str = "3600s";
/// Tries after the first one, and the time after which no other is begun.
const RETRIES: usize = 12;
const RETRY_DEADLINE: Duration = Duration::from_secs(120);
/// The same where a person waits for the first answer.
const FEW_RETRIES: usize = 3;
const SHORT_DEADLINE: Duration = Duration::from_secs(15);
/// Waits between tries, drawn from a range that doubles: from the first to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How a remote store is asked, where its URL does not say it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Sent as `Authorization: Bearer …`.
    pub(crate) bearer: Option<Bearer>,
    /// Give up after a few tries instead of two minutes: somebody waits in front of the screen.
    pub(crate) impatient: bool,
    /// An answer may take an hour as long as it comes: whole files are downloaded.
    pub(crate) long_answers: bool,
}

/// A token, which is not printed.
#[derive(Clone)]
pub(crate) struct Bearer(pub(crate) String);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Bearer(…)")
    }
}

impl Access {
    /// What tells the clients of one place apart.
    pub(crate) fn key(&self) -> String {
        let bearer = self.bearer.as_ref().map_or("", |bearer| &bearer.0);
        format!("\n{bearer}\n{} {}", self.impatient, self.long_answers)
    }

    /// What is tried again: connections that fail or break, also in the middle of an answer, timeouts, 408,
    /// 429 and 5xx.
    fn retries(&self) -> RetryConfig {
        let backoff = BackoffConfig { init_backoff: FIRST_WAIT, max_backoff: LONGEST_WAIT, base: 2.0 };
        match self.impatient {
            true => RetryConfig { backoff, max_retries: FEW_RETRIES, retry_timeout: SHORT_DEADLINE },
            false => RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_DEADLINE },
        }
    }

    /// Headers of every request to a plain HTTP server: the user of the URL, or the token.
    fn headers(&self, url: &Url) -> Result<HeaderMap, object_store::Error> {
        let value = match &self.bearer {
            Some(Bearer(token)) => format!("Bearer {token}"),
            None if url.username().is_empty() && url.password().is_none() => return Ok(HeaderMap::new()),
            None => {
                let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
                let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
                format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
            }
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| object_store::Error::Generic {
            store: "location",
            source: "the token has letters that no HTTP header can have".into(),
        })?;
        value.set_sensitive(true);
        Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
    }
}

/// The kind of store a URL names and the path in it. A signed `http(s)` URL is asked for as it is, whoever
/// serves it.
pub(crate) fn scheme(url: &Url) -> Result<(ObjectStoreScheme, Path), object_store::Error> {
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    match scheme {
        ObjectStoreScheme::AmazonS3 if url.query().is_some() && url.scheme().starts_with("http") => {
            Ok((ObjectStoreScheme::Http, Path::from_url_path(url.path())?))
        }
        scheme => Ok((scheme, path)),
    }
}

/// Refuses what no store would understand, in words.
pub(crate) fn check(url: &Url) -> Result<(), String> {
    let known = ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https", "memory"];
    if !known.contains(&url.scheme()) {
        return Err(format!(
            "`{}://` is no store that is known; use a path, file://, s3://, gs://, az:// or http(s)://",
            url.scheme()
        ));
    }
    if url.scheme().starts_with("http") {
        return Ok(());
    }
    let variables = match url.scheme() {
        "s3" | "s3a" => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs" => "GOOGLE_SERVICE_ACCOUNT",
        _ => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    };
    if url.password().is_some() || (url.scheme().starts_with(['s', 'g']) && !url.username().is_empty()) {
        return Err(format!("credentials of `{}://` are not part of its URL; set {variables}", url.scheme()));
    }
    if url.query().is_some_and(|query| !query.is_empty()) {
        return Err(format!(
            "a query means nothing for `{}://`; name a signed object by its https:// URL",
            url.scheme()
        ));
    }
    Ok(())
}

/// A client for the store of `url`.
///
/// The environment's options (`AWS_*`, `GOOGLE_*`, `AZURE_*`) win over the deadlines here: `AWS_TIMEOUT=5m`.
pub(crate) fn connect(url: &Url, access: &Access) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    // Fails when a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, _) = scheme(url)?;
    let options = options(url, access);
    /// The builder's own keys among the options; those of other stores are not its business.
    macro_rules! builder {
        ($builder:ty) => {{
            let start = <$builder>::new()
                .with_url(unsigned(url))
                .with_retry(access.retries())
                .with_http_connector(CountedTries::default());
            options.iter().fold(start, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            })
        }};
    }
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => credentials::s3(builder!(AmazonS3Builder), &options)?,
        ObjectStoreScheme::GoogleCloudStorage => Arc::new(builder!(GoogleCloudStorageBuilder).build()?),
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = builder!(MicrosoftAzureBuilder);
            Arc::new(match url.query() {
                Some(signature) => builder.with_config(AzureConfigKey::SasKey, signature).build()?,
                None => builder.build()?,
            })
        }
        ObjectStoreScheme::Http => {
            let headers = access.headers(url)?;
            let start = HttpBuilder::new()
                .with_client_options(ClientOptions::new().with_default_headers(headers))
                .with_url(http_base(url))
                .with_retry(access.retries())
                .with_http_connector(CountedTries::default());
            let laid =
                options.iter().fold(start, |builder, (key, value)| match ClientConfigKey::from_str(key) {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                });
            match url.query() {
                Some(_) => Arc::new(SignedObjects::store(laid.build()?)),
                None => Arc::new(laid.build()?),
            }
        }
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        _ => {
            let source = "use a path, file://, s3://, gs://, az:// or http(s)://".into();
            return Err(object_store::Error::Generic { store: "location", source });
        }
    };
    Ok(Counted::store(store))
}

/// The URL without its query.
fn unsigned(url: &Url) -> &str {
    &url[..Position::AfterPath]
}

/// Scheme, host and port of a server, and the query of what is asked for there.
fn http_base(url: &Url) -> String {
    let query = url.query().map(|query| format!("/?{query}")).unwrap_or_default();
    format!("{}://{}{query}", url.scheme(), &url[Position::BeforeHost..Position::BeforePath])
}

/// The deadlines, and after them the environment variables of the URL's store. Only prefixed names count: a
/// stray `TOKEN` must not become a credential.
fn options(url: &Url, access: &Access) -> Vec<(String, String)> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let mut options: Vec<_> =
        [("connect_timeout", CONNECT_TIMEOUT), ("timeout", REQUEST_TIMEOUT)].map(owned).to_vec();
    if access.long_answers {
        options.extend([("timeout", LONG_TIMEOUT), ("read_timeout", REQUEST_TIMEOUT)].map(owned));
    }
    if url.scheme() == "http" {
        options.push(owned(("allow_http", "true")));
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
