//! Where entries live.

pub(crate) mod contiguous;
pub(crate) mod slots;
