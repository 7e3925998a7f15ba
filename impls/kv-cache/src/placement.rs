//! Where entries live.

pub(crate) mod contiguous;
pub(crate) mod paged;
pub(crate) mod slots;
