//! The coordinator of a curation: its tasks on leases.

use std::time::Duration;

use blip2_leases::server::{Admission, LeaseEnd, LeaseOptions, LeasedWork, hand_out};
use tokio::net::TcpListener;

use crate::error::Result;
use crate::job::CurationJob;

/// What a curation's coordinator is started with.
#[derive(Debug)]
pub struct CurationOptions {
    /// The job, whose records say which tasks are done.
    pub job: CurationJob,
    /// The configuration's section, as TOML.
    pub config_toml: String,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// A task that fails so often ends the curation.
    pub most_failures: u32,
    /// Its workers.
    pub admission: Admission,
}

#[tonic::async_trait]
impl LeasedWork for CurationJob {
    async fn rows_done(&self, task: u64) -> std::result::Result<Option<u64>, String> {
        let record = self.task_done(task).await.map_err(|error| error.to_string())?;
        Ok(record.map(|done| done.rows_read))
    }
}

/// Hands out tasks on `listener` until all are done, one has failed too often, or `shutdown`.
///
/// # Errors
/// The store fails before the first lease, or the server cannot run.
pub async fn coordinate_curation(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    options: CurationOptions,
) -> Result<LeaseEnd> {
    let CurationOptions { job, config_toml, lease, most_failures, admission } = options;
    let (tasks, done) = (job.tasks().len() as u64, job.tasks_done().await?);
    let options = LeaseOptions {
        called: "curation",
        work: config_toml,
        tasks,
        done,
        barriers: Vec::new(),
        lease,
        most_failures,
        admission,
    };
    Ok(hand_out(listener, shutdown, job, options).await?)
}
