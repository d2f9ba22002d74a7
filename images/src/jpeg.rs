//! JPEG's segments: what the header says, whether the file is whole, and the kinds that the fast decoder gets
//! wrong.

mod frame;
mod markers;
mod unusual;

pub(super) use frame::{JpegColours, JpegFrame};
pub(super) use markers::jpeg_is_complete;
pub(super) use unusual::decode_unusual;
