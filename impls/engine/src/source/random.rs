//! Shapes for random weights: real sizes without a download.

use model::Architecture;

/// A named shape.
pub struct Shape {
    /// Name after `random:`.
    pub name: &'static str,
    /// What it resembles.
    pub like: &'static str,
    sizes: Sizes,
}

struct Sizes {
    vocab: usize,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    tied: bool,
}

/// Every shape `random:` knows.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "llama-tiny",
        like: "a test-sized Llama, 0.2 M parameters",
        sizes: Sizes { vocab: 512, hidden: 64, ffn: 192, layers: 2, heads: 4, kv_heads: 2, head_dim: 16, tied: true },
    },
    Shape {
        name: "llama-135m",
        like: "SmolLM-135M",
        sizes: Sizes {
            vocab: 49152,
            hidden: 576,
            ffn: 1536,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            tied: true,
        },
    },
    Shape {
        name: "llama-1.1b",
        like: "TinyLlama-1.1B",
        sizes: Sizes {
            vocab: 32000,
            hidden: 2048,
            ffn: 5632,
            layers: 22,
            heads: 32,
            kv_heads: 4,
            head_dim: 64,
            tied: false,
        },
    },
];

/// The architecture called `name`.
pub fn shape(name: &str) -> Option<Architecture> {
    let s = &SHAPES.iter().find(|s| s.name == name)?.sizes;
    let heads = [s.heads, s.kv_heads, s.head_dim];
    Some(Architecture {
        max_positions: 8192,
        tied_head: s.tied,
        ..Architecture::llama(s.vocab, s.hidden, s.layers, heads, s.ffn)
    })
}
