//! TensorBoard's file of a run on this machine.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use blip2_proto::v1::StatusReply;
use tokio::sync::watch;

use crate::record::StepRecord;
use crate::tensorboard::{event_name, event_of, head};

/// Where the steps go that are committed from now on.
#[derive(Debug)]
pub(crate) struct EventFile {
    folder: PathBuf,
    status: watch::Receiver<StatusReply>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// No step is committed yet.
    None,
    Open(File),
    /// It could not be written, which was said.
    Lost,
}

impl EventFile {
    /// A file below `folder` for the coordinator that has this status.
    pub(crate) fn new(folder: PathBuf, status: watch::Receiver<StatusReply>) -> Self {
        Self { folder, status, place: Place::None }
    }

    /// Takes in a committed step. A file that cannot be written is said once and then left alone: the metrics
    /// have all that is in it.
    pub(crate) fn record(&mut self, record: &StepRecord) {
        if let Err(error) = self.write(record) {
            tracing::warn!("{}: no more is written for TensorBoard: {error}", self.folder.display());
            self.place = Place::Lost;
        }
    }

    fn write(&mut self, record: &StepRecord) -> std::io::Result<()> {
        if matches!(self.place, Place::None) {
            std::fs::create_dir_all(&self.folder)?;
            let name = event_name(self.status.borrow().epoch, record.step);
            let mut file = File::create(self.folder.join(name))?;
            file.write_all(&head(record.step))?;
            self.place = Place::Open(file);
        }
        match &mut self.place {
            Place::Open(file) => file.write_all(&event_of(record)),
            Place::None | Place::Lost => Ok(()),
        }
    }
}
