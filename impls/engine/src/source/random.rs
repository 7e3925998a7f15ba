//! Shapes for random weights: real sizes without a download.

use std::path::Path;

use model::Architecture;

/// A named shape.
pub struct Shape {
    /// Name after `random:`.
    pub name: &'static str,
    /// What it resembles.
    pub like: &'static str,
    sizes: Sizes,
}

/// A family other than Llama, as its config.json would say it.
struct Configured {
    name: &'static str,
    config: &'static str,
}

/// Families whose identities are checked on random weights.
const CONFIGURED: &[Configured] = &[
    Configured {
        name: "gpt2-tiny",
        config: r#"{"model_type":"gpt2","vocab_size":512,"n_positions":512,"n_embd":128,"n_layer":3,"n_head":4,"n_inner":384,
            "activation_function":"gelu_new","layer_norm_epsilon":1e-5,"tie_word_embeddings":true}"#,
    },
    Configured {
        name: "mixtral-tiny",
        config: r#"{"model_type":"mixtral","vocab_size":512,"hidden_size":128,"intermediate_size":128,"num_hidden_layers":3,
            "num_attention_heads":4,"num_key_value_heads":4,"num_local_experts":8,"num_experts_per_tok":2,"hidden_act":"silu",
            "max_position_embeddings":512,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#,
    },
    Configured {
        name: "deepseek-tiny",
        config: r#"{"model_type":"deepseek_v2","vocab_size":512,"hidden_size":128,"intermediate_size":192,"num_hidden_layers":3,
            "num_attention_heads":4,"num_key_value_heads":4,"q_lora_rank":null,"kv_lora_rank":96,"qk_rope_head_dim":32,
            "qk_nope_head_dim":32,"v_head_dim":32,"first_k_dense_replace":3,"n_routed_experts":2,"num_experts_per_tok":1,
            "n_shared_experts":1,"moe_intermediate_size":32,"n_group":1,"topk_group":1,"hidden_act":"silu",
            "max_position_embeddings":512,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#,
    },
];

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
        name: "mha-8x128",
        like: "the attention of the 2017 big transformer and of Shazeer (2019), d 1024 with 8 heads of 128, in four layers",
        sizes: Sizes {
            vocab: 512,
            hidden: 1024,
            ffn: 1024,
            layers: 4,
            heads: 8,
            kv_heads: 8,
            head_dim: 128,
            tied: true,
        },
    },
    Shape {
        name: "mha-16x64",
        like: "the same width in 16 heads of 64",
        sizes: Sizes {
            vocab: 512,
            hidden: 1024,
            ffn: 1024,
            layers: 4,
            heads: 16,
            kv_heads: 16,
            head_dim: 64,
            tied: true,
        },
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

/// Names of every shape.
pub fn shape_names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|s| s.name).chain(CONFIGURED.iter().map(|c| c.name))
}

/// The architecture called `name`.
pub fn shape(name: &str) -> Option<Architecture> {
    if let Some(found) = CONFIGURED.iter().find(|c| c.name == name) {
        let file = format!("random:{name}");
        return Architecture::from_json(Path::new(&file), found.config).ok();
    }
    let s = &SHAPES.iter().find(|s| s.name == name)?.sizes;
    let heads = [s.heads, s.kv_heads, s.head_dim];
    Some(Architecture {
        max_positions: 8192,
        tied_head: s.tied,
        ..Architecture::llama(s.vocab, s.hidden, s.layers, heads, s.ffn)
    })
}

/// The config.json of the shape called `name`.
pub fn config(name: &str) -> Option<String> {
    if let Some(found) = CONFIGURED.iter().find(|c| c.name == name) {
        return Some(found.config.into());
    }
    let s = &SHAPES.iter().find(|s| s.name == name)?.sizes;
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": s.vocab, "hidden_size": s.hidden,
        "intermediate_size": s.ffn, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "max_position_embeddings": 8192, "rope_theta": 10000.0, "tie_word_embeddings": s.tied,
    });
    Some(config.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_shape_is_an_architecture() {
        for name in super::shape_names() {
            let shape = super::shape(name);
            assert!(shape.is_some(), "{name}");
            let written =
                model::Architecture::from_json(std::path::Path::new(name), &super::config(name).unwrap()).ok();
            assert_eq!(shape, written, "{name}");
        }
    }
}
