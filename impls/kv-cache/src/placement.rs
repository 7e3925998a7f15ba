//! Where entries live.

pub(crate) mod contiguous;
pub(crate) mod paged;
mod pool;
pub(crate) mod slots;
