//! The names of each family, as Hugging Face writes them.

use super::{ExpertNames, Names, QkvNames, UpNames};

/// Llama and everything that took over its names.
pub const LLAMA: Names = Names {
    prefixes: &["model.", ""],
    embedding: "embed_tokens",
    embedding_norm: "",
    positions: "",
    project: ["", ""],
    final_norm: "norm",
    head: "lm_head",
    layers: "layers.",
    norms: ["input_layernorm", "post_attention_layernorm"],
    output_norms: ["", ""],
    qk_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    qkv: QkvNames::Separate(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    out: "self_attn.o_proj",
    up: UpNames::Separate(&["mlp.gate_proj", "mlp.up_proj"]),
    down: "mlp.down_proj",
    experts: None,
    transposed: false,
};

/// Experts beside a router that is called a gate, and no shared one.
const ROUTED: ExpertNames = ExpertNames {
    router: "mlp.gate",
    expert: "mlp.experts.",
    up: &["gate_proj", "up_proj"],
    down: "down_proj",
    choice_bias: "",
    shared: "",
    shared_gate: "",
};

/// DeepSeek-V2, outside its latent attention.
pub const DEEPSEEK_V2: Names = Names { experts: Some(ExpertNames { shared: "mlp.shared_experts", ..ROUTED }), ..LLAMA };

/// DeepSeek-V3, outside its latent attention.
pub const DEEPSEEK_V3: Names = Names {
    experts: Some(ExpertNames {
        choice_bias: "mlp.gate.e_score_correction_bias",
        shared: "mlp.shared_experts",
        ..ROUTED
    }),
    ..LLAMA
};

/// Gemma 2: two more norms, and another meaning of `post_attention_layernorm`.
pub const GEMMA2: Names = Names {
    norms: ["input_layernorm", "pre_feedforward_layernorm"],
    output_norms: ["post_attention_layernorm", "post_feedforward_layernorm"],
    ..LLAMA
};

/// OLMo 2: norms on outputs alone.
pub const OLMO2: Names =
    Names { norms: ["", ""], output_norms: ["post_attention_layernorm", "post_feedforward_layernorm"], ..LLAMA };

/// Mixtral.
pub const MIXTRAL: Names = Names {
    experts: Some(ExpertNames {
        router: "block_sparse_moe.gate",
        expert: "block_sparse_moe.experts.",
        up: &["w1", "w3"],
        down: "w2",
        ..ROUTED
    }),
    ..LLAMA
};

/// Qwen2-MoE and Qwen3-MoE.
pub const QWEN_MOE: Names = Names {
    experts: Some(ExpertNames { shared: "mlp.shared_expert", shared_gate: "mlp.shared_expert_gate", ..ROUTED }),
    ..LLAMA
};

/// Phi-3: fused q, k, v and fused gate, up.
pub const PHI3: Names =
    Names { qkv: QkvNames::Stacked("self_attn.qkv_proj"), up: UpNames::Stacked("mlp.gate_up_proj"), ..LLAMA };

/// StableLM: a query and key norm per head.
pub const STABLELM: Names =
    Names { qk_norms: ["self_attn.q_layernorm.norms.{}", "self_attn.k_layernorm.norms.{}"], ..LLAMA };

/// StarCoder 2: Llama's attention, GPT-2's MLP.
pub const STARCODER2: Names = Names { up: UpNames::Separate(&["mlp.c_fc"]), down: "mlp.c_proj", ..LLAMA };

/// Phi-1 and Phi-2.
pub const PHI: Names = Names {
    final_norm: "final_layernorm",
    norms: ["input_layernorm", ""],
    qk_norms: ["self_attn.q_layernorm", "self_attn.k_layernorm"],
    out: "self_attn.dense",
    up: UpNames::Separate(&["mlp.fc1"]),
    down: "mlp.fc2",
    ..LLAMA
};

/// GPT-2: stacked and transposed.
pub const GPT2: Names = Names {
    prefixes: &["transformer.", ""],
    embedding: "wte",
    positions: "wpe",
    final_norm: "ln_f",
    layers: "h.",
    norms: ["ln_1", "ln_2"],
    qkv: QkvNames::Stacked("attn.c_attn"),
    out: "attn.c_proj",
    up: UpNames::Separate(&["mlp.c_fc"]),
    down: "mlp.c_proj",
    transposed: true,
    ..LLAMA
};

/// OPT.
pub const OPT: Names = Names {
    prefixes: &["model.decoder.", "decoder."],
    positions: "embed_positions",
    project: ["project_in", "project_out"],
    final_norm: "final_layer_norm",
    norms: ["self_attn_layer_norm", "final_layer_norm"],
    out: "self_attn.out_proj",
    up: UpNames::Separate(&["fc1"]),
    down: "fc2",
    ..LLAMA
};

/// GPT-NeoX and Pythia.
pub const GPT_NEOX: Names = Names {
    prefixes: &["gpt_neox.", ""],
    embedding: "embed_in",
    final_norm: "final_layer_norm",
    head: "embed_out",
    qkv: QkvNames::ByGroup("attention.query_key_value"),
    out: "attention.dense",
    up: UpNames::Separate(&["mlp.dense_h_to_4h"]),
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

/// Falcon 7B: one key/value head, one norm.
pub const FALCON: Names = Names {
    prefixes: &["transformer.", ""],
    embedding: "word_embeddings",
    final_norm: "ln_f",
    layers: "h.",
    qkv: QkvNames::ByGroup("self_attention.query_key_value"),
    out: "self_attention.dense",
    up: UpNames::Separate(&["mlp.dense_h_to_4h"]),
    down: "mlp.dense_4h_to_h",
    ..LLAMA
};

/// Falcon 40B: a norm before attention and one before the MLP.
pub const FALCON_TWO_NORMS: Names = Names { norms: ["ln_attn", "ln_mlp"], ..FALCON };

/// GLM 3: fused gate, up.
pub const GLM: Names = Names { up: UpNames::Stacked("mlp.gate_up_proj"), ..LLAMA };

/// GLM 4 (0414): norms before and after.
pub const GLM4: Names = Names { output_norms: ["post_self_attn_layernorm", "post_mlp_layernorm"], ..GLM };

/// Nemotron and Arcee: no gate.
pub const NEMOTRON: Names = Names { up: UpNames::Separate(&["mlp.up_proj"]), ..LLAMA };

/// GPT-J.
pub const GPTJ: Names = Names {
    norms: ["ln_1", ""],
    qkv: QkvNames::Separate(["attn.q_proj", "attn.k_proj", "attn.v_proj"]),
    out: "attn.out_proj",
    up: UpNames::Separate(&["mlp.fc_in"]),
    down: "mlp.fc_out",
    transposed: false,
    ..GPT2
};

/// CodeGen: the heads were divided over four devices when it was trained, and are stored so.
pub const CODEGEN: Names = Names { qkv: QkvNames::ByPart { name: "attn.qkv_proj", parts: 4 }, ..GPTJ };

/// GPT-BigCode with one key/value head; with one per head, see [`GPT_BIGCODE_HEADS`].
pub const GPT_BIGCODE: Names = Names { transposed: false, ..GPT2 };

/// GPT-BigCode with a key/value head per query head.
pub const GPT_BIGCODE_HEADS: Names = Names { qkv: QkvNames::ByGroup("attn.c_attn"), ..GPT_BIGCODE };

/// BLOOM.
pub const BLOOM: Names = Names { embedding_norm: "word_embeddings_layernorm", ..FALCON };

/// MPT.
pub const MPT: Names = Names {
    prefixes: &["transformer.", ""],
    embedding: "wte",
    final_norm: "norm_f",
    layers: "blocks.",
    norms: ["norm_1", "norm_2"],
    qkv: QkvNames::Stacked("attn.Wqkv"),
    out: "attn.out_proj",
    up: UpNames::Separate(&["ffn.up_proj"]),
    down: "ffn.down_proj",
    ..LLAMA
};
