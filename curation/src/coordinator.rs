//! The coordinator of a curation: its tasks on leases.

use std::time::Duration;

use blip2_leases::server::{Admission, LeaseEnd, LeaseOptions, hand_out};
use tokio::net::TcpListener;

use crate::counted::{Counted, CountedJob};
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
    /// What the tasks that are done have come to.
    pub counted: Counted,
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
    let CurationOptions { job, config_toml, lease, most_failures, admission, counted } = options;
    let (tasks, done) = (job.tasks().len() as u64, job.tasks_done().await?);
    let options = LeaseOptions {
        called: "curation",
        work: config_toml,
        tasks,
        done: done.clone(),
        barriers: Vec::new(),
        lease,
        most_failures,
        admission,
    };
    let work = CountedJob { job: job.clone(), counted: counted.clone() };
    let mut handed_out = std::pin::pin!(hand_out(listener, shutdown, work, options));
    tokio::select! {
        end = &mut handed_out => return Ok(end?),
        () = counted.count_earlier(&job, done) => {}
    }
    Ok(handed_out.await?)
}
