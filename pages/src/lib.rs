//! Pages: HTML in one file that needs nothing beside it, with bars, charts and histograms drawn as SVG.
//!
//! | module | holds |
//! |---|---|
//! | [`document`] | the frame of every page, its tiles and its lists of facts |
//! | [`bars`], [`chart`], [`histogram`] | what is drawn |
//! | [`quickstart_page`] | what a first run learnt |
//! | [`run_page`] | any run: curves, throughput, configuration, faults |
//!
//! A page is a function of the numbers and texts that it shows. Nothing here reads a run or writes a file,
//! and everything that came from elsewhere is escaped where it is written.

pub mod bars;
pub mod chart;
pub mod document;
pub mod histogram;
pub mod quickstart_page;
pub mod run_page;
pub mod scenes_page;
