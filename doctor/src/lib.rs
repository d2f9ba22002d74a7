//! Whether a machine, its store and its network are as a run needs them.
//!
//! A [`check::Check`] is declared once: its name, what it asks, and what to do where the answer is bad. What
//! a run needs is told as numbers; nothing here knows a configuration, a model or a coordinator. Nothing is
//! written but one object, which is removed.
//!
//! | module | asks about |
//! |---|---|
//! | [`store`] | the run's store: writing, who wins of two writers, its clock |
//! | [`data`] | the corpus' first file, its columns, how fast it is read |
//! | [`device`] | the device, and what kernels for it are linked with |
//! | [`machine`] | memory, disks, open files, shared memory |
//! | [`peers`] | members of the run that are to be reached |
//! | [`ports`], [`proxies`] | ports to listen on, proxies in the environment |

pub mod check;
pub mod data;
pub mod device;
pub mod machine;
pub mod peers;
pub mod ports;
pub mod proxies;
pub mod store;

use check::Check;

/// Every check of this crate.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    let lists = [
        store::CHECKS,
        data::CHECKS,
        device::CHECKS,
        machine::CHECKS,
        peers::CHECKS,
        ports::CHECKS,
        proxies::CHECKS,
    ];
    lists.into_iter().flatten().copied()
}
