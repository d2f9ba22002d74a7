//! The sum of a step's gradient over all slots and members, and where it lands: what every task's step is
//! made of.
//!
//! A task gets a [`Step`](context::Step) and gives each slot's values and gradient to
//! [`Slots`](reduction::Slots), which adds them up bucket by bucket (here called parts) over the own slots
//! and with the peers; [`Landing`](landing::Landing) makes of each sum what the step leads to, the
//! [`NextState`](next::NextState). Beside that way are the raw features that members lend each other
//! (`feature_rows`, `row_rounds`), buffers that all give to all (`gathering`), what held-out rows come to
//! (`unit_buffers`), who is to blame for a value that is not finite (`odd_slots`), and what all of it costs
//! (`times`, `traffic`).

pub(crate) mod context;
pub(crate) mod feature_rows;
pub(crate) mod gathering;
pub(crate) mod landing;
pub(crate) mod next;
pub(crate) mod odd_slots;
pub(crate) mod own_sums;
pub(crate) mod peers;
pub(crate) mod reduction;
mod row_buffers;
pub(crate) mod row_gradients;
pub(crate) mod row_rounds;
pub(crate) mod slots;
#[cfg(test)]
mod test_members;
pub(crate) mod times;
pub(crate) mod traffic;
pub(crate) mod unit_buffers;
