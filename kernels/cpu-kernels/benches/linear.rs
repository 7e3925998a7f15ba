//! Criterion benches of the linears on the shapes that matter.

fn main() {}
