//! Runs of members in one process. One program for all, since it is what they share that takes long to build.

mod answers;
mod asked;
mod bad_models;
mod blip_tiny;
mod instructed;
mod members;
mod rejoining;
mod small;
mod trained_encoder;
mod world_sizes;
