//! Credentials of S3: those of the environment, or those of the machine; where there are neither, an error
//! that says what to set.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::{CredentialProvider, Error, ObjectStore, Result};
use tokio::sync::OnceCell;

/// Where a machine of Amazon's asks for its own credentials.
const MACHINE_ROLE: &str = "169.254.169.254:80";
/// Such a machine answers within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Any of these says where credentials come from, or that none are needed.
const SOURCES: [&str; 6] = [
    "aws_access_key_id",
    "aws_web_identity_token_file",
    "aws_container_credentials_relative_uri",
    "aws_container_credentials_full_uri",
    "aws_skip_signature",
    "aws_metadata_endpoint",
];

/// The store of S3 that `builder` makes with the environment's `options`.
pub(crate) fn s3(builder: AmazonS3Builder, options: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
    let given = |name: &str| options.iter().any(|(key, value)| key == name && !value.is_empty());
    if given("aws_access_key_id") != given("aws_secret_access_key") {
        let source = "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither".into();
        return Err(Error::Generic { store: "S3", source });
    }
    if SOURCES.iter().any(|name| given(name)) {
        return Ok(Arc::new(builder.build()?));
    }
    let plain = builder.clone().build()?;
    let role = MachineRole { credentials: plain.credentials().clone(), is_there: OnceCell::new() };
    Ok(Arc::new(builder.with_credentials(Arc::new(role)).build()?))
}

/// The credentials of a machine, on machines that have them.
#[derive(Debug)]
struct MachineRole {
    credentials: AwsCredentialProvider,
    is_there: OnceCell<bool>,
}

#[async_trait]
impl CredentialProvider for MachineRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> Result<Arc<AwsCredential>> {
        let answers = || async {
            let disabled = std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value == "true");
            if disabled {
                return false;
            }
            let connected = tokio::net::TcpStream::connect(MACHINE_ROLE);
            matches!(tokio::time::timeout(ANSWER_WITHIN, connected).await, Ok(Ok(_)))
        };
        if !*self.is_there.get_or_init(answers).await {
            let source = "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for \
                          temporary ones), with AWS_REGION, and AWS_ENDPOINT for a server that is not Amazon's; or \
                          AWS_SKIP_SIGNATURE=true for what everybody may read"
                .into();
            return Err(Error::Generic { store: "S3", source });
        }
        self.credentials.get_credential().await
    }
}
