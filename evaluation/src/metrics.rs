//! Numbers from scores, answers and captions alone, whoever computed them.
//!
//! - [`vqa`]: accuracy of short answers; [`means`]: means of them, over all and by type
//! - [`captions`]: BLEU, ROUGE-L, CIDEr-D, and what METEOR counts
//! - [`retrieval`]: recall both ways; [`recalls`]: of several rankings, with means
//! - [`bootstrap`]: how sure a score is, and a difference of two
//! - [`rounding`]: two decimals, as the reference tools print them

pub mod bootstrap;
pub mod captions;
pub mod means;
pub mod recalls;
pub mod retrieval;
pub mod rounding;
pub mod vqa;
