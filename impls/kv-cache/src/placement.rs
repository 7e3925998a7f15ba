//! Where entries live.

pub(crate) mod contiguous;
