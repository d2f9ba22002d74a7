//! What a run costs, before it is begun: operations, seconds, bytes and money.
//!
//! Pure arithmetic over a [`workload::Workload`] and a [`cluster::Cluster`]; no model, no file, no network,
//! no clock. Who knows the models says what they ask of a device; what a device gives is in [`card`].
//!
//! - [`units`]: operations, bytes, seconds and their rates, each a type of its own.
//! - [`card`]: what cards give, from their makers' data sheets.
//! - [`workload`]: what a stage asks, for each pair and each micro-batch.
//! - [`cluster`]: the workers, and what is assumed of them.
//! - [`step`]: seconds of a step by the roofline, and what of the gradient's exchange is hidden behind it.
//! - [`memory`]: bytes on a device and on its host, and the largest micro-batch that fits.
//! - [`prediction`]: all of it for a stage, its length, and what bounds it; [`plan`]: all stages.
//! - [`requests`]: what pods should ask for; [`words`]: a plan for people.

pub mod card;
pub mod cluster;
pub mod memory;
pub mod plan;
pub mod prediction;
pub mod requests;
pub mod step;
pub mod units;
pub mod words;
pub mod workload;
