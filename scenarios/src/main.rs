//! infermark
fn main() {}
