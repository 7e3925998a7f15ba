//! Errors about a `config.json` that was made from metadata, in the words of the metadata.

use super::metadata::Metadata;
use crate::architecture::ConfigError;
use crate::checkpoint::CheckpointError;

/// Fields of a config.json and the keys, without the kind of model, that they were made from.
const KEYS: &[(&str, &str)] = &[
    ("alibi_bias_max", "attention.max_alibi_bias"),
    ("attention_multiplier", "attention.scale"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("clip_qkv", "attention.clamp_kqv"),
    ("d_model", "embedding_length"),
    ("embedding_multiplier", "embedding_scale"),
    ("ffn_hidden_size", "feed_forward_length"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("first_k_dense_replace", "leading_dense_block_count"),
    ("head_dim", "attention.key_length"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("kv_lora_rank", "attention.kv_lora_rank"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    ("layer_types", "attention.sliding_window_pattern"),
    ("logit_scale", "logit_scale"),
    ("logits_scaling", "logit_scale"),
    ("max_position_embeddings", "context_length"),
    ("max_seq_len", "context_length"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("n_embd", "embedding_length"),
    ("n_group", "expert_group_count"),
    ("n_head", "attention.head_count"),
    ("n_heads", "attention.head_count"),
    ("n_inner", "feed_forward_length"),
    ("n_layer", "block_count"),
    ("n_layers", "block_count"),
    ("n_positions", "context_length"),
    ("n_routed_experts", "expert_count"),
    ("n_shared_experts", "expert_shared_count"),
    ("norm_epsilon", "attention.layer_norm_epsilon"),
    ("norm_eps", "attention.layer_norm_epsilon"),
    ("norm_topk_prob", "expert_weights_norm"),
    ("num_attention_heads", "attention.head_count"),
    ("num_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("num_hidden_layers", "block_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("num_kv_heads", "attention.head_count_kv"),
    ("num_local_experts", "expert_count"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
    ("partial_rotary_factor", "rope.dimension_count"),
    ("q_lora_rank", "attention.q_lora_rank"),
    ("qk_rope_head_dim", "rope.dimension_count"),
    ("residual_multiplier", "residual_scale"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("rope_type", "rope.scaling.type"),
    ("rotary_dim", "rope.dimension_count"),
    ("routed_scaling_factor", "expert_weights_scale"),
    ("seq_length", "context_length"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
    ("sliding_window", "attention.sliding_window"),
    ("topk_group", "expert_group_used_count"),
    ("v_head_dim", "attention.value_length_mla"),
    ("vocab_size", "vocab_size"),
];

/// `error` with the key of a model of `kind` in the place of a field, where the field was made from a key.
pub(super) fn in_words_of_the_file(metadata: &Metadata, kind: &str, error: ConfigError) -> CheckpointError {
    let (field, expected, found) = match &error {
        ConfigError::Field { field, expected, found, .. } => (field, expected, found),
        ConfigError::Unsupported { field, asked, supported, .. } => (field, supported, asked),
        ConfigError::Syntax { .. } => return error.into(),
    };
    let last = field.rsplit('.').next().unwrap_or(field);
    let Some((_, key)) = KEYS.iter().find(|(name, _)| *name == last) else { return error.into() };
    let words = KEYS.iter().fold(expected.clone(), |text, (name, key)| in_place_of(&text, name, key));
    CheckpointError::Malformed {
        file: metadata.file().into(),
        problem: format!("key `{kind}.{key}`: expected {words}, found {found}"),
        advice: "convert the model to GGUF again, or use its Hugging Face checkpoint",
    }
}

/// `text` with `key` for every whole word `name`.
fn in_place_of(text: &str, name: &str, key: &str) -> String {
    if !name.contains('_') {
        return text.into();
    }
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let words = text.split_inclusive(|c| !part(c)).map(|word| {
        let bare = word.trim_end_matches(|c| !part(c));
        if bare == name { format!("{key}{}", &word[bare.len()..]) } else { word.into() }
    });
    words.collect()
}
