//! Numbers from scores and answers alone, whoever computed them.
//!
//! - [`vqa`]: accuracy of short answers; [`means`]: means of them, over all and by type
//! - [`retrieval`]: recall both ways; [`recalls`]: of several rankings, with means
//! - [`bootstrap`]: how sure a score is, and a difference of two
//! - [`rounding`]: two decimals, as the reference tools print them

pub mod bootstrap;
pub mod means;
pub mod recalls;
pub mod retrieval;
pub mod rounding;
pub mod vqa;
