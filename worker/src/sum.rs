//! The sum of a step's gradient over all slots and members, and where it lands: what every task's step is
//! made of.

pub(crate) mod context;
pub(crate) mod feature_rows;
pub(crate) mod landing;
pub(crate) mod next;
pub(crate) mod odd_slots;
pub(crate) mod own_sums;
pub(crate) mod peers;
pub(crate) mod reduction;
mod row_buffers;
pub(crate) mod row_gradients;
pub(crate) mod slots;
pub(crate) mod times;
pub(crate) mod traffic;
pub(crate) mod unit_buffers;
