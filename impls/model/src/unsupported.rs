//! A combination that cannot run here. Planning turns it into a skipped cell with its reason, never into a pass.

/// A part that cannot be built on this device, or together with the other parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{axis} `{variant}` cannot run here: {reason}")]
pub struct Unsupported {
    /// The axis, e.g. `attention`.
    pub axis: &'static str,
    /// The variant's tag.
    pub variant: String,
    /// Why, and what to do.
    pub reason: String,
}
