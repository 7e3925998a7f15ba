//! What each kind of model in GGUF says beyond the common sizes, in the words of its config.json.

use serde_json::{Value, json};

use super::config::{Reader, Sizes};
use crate::checkpoint::CheckpointError;

impl Reader<'_> {
    /// Sets what only this kind of model has; gives back its `model_type`.
    pub(super) fn particular(
        &self,
        s: &Sizes,
        set: &mut dyn FnMut(&str, Value),
    ) -> Result<&'static str, CheckpointError> {
        let biased = |part: &str| self.has(&format!("blk.0.{part}.bias"));
        let parallel = |default| {
            Ok::<_, CheckpointError>(json!(
                self.header.metadata.flag(&self.key("use_parallel_residual"))?.unwrap_or(default)
            ))
        };
        let window = self.whole("attention.sliding_window")?.filter(|w| *w > 0);
        Ok(match self.kind {
            "llama" if self.whole("expert_count")?.is_some_and(|n| n > 0) => {
                set("sliding_window", json!(window));
                "mixtral"
            }
            "llama" if window.is_some() => {
                set("sliding_window", json!(window));
                "mistral"
            }
            // q, k and v biased and the output not: what Qwen2 writes
            "llama" if biased("attn_q") && !biased("attn_output") => "qwen2",
            "llama" => {
                set("attention_bias", json!(biased("attn_q")));
                set("mlp_bias", json!(biased("ffn_down")));
                "llama"
            }
            "granite" => {
                set("attention_bias", json!(biased("attn_q")));
                self.granite(set)?;
                "granite"
            }
            "qwen2" => "qwen2",
            "qwen3" => "qwen3",
            "qwen2moe" | "qwen3moe" => self.qwen_moe(set)?,
            "gemma" => "gemma",
            "gemma2" => self.gemma2(s, window, set)?,
            "phi2" => "phi",
            "phi3" => {
                set("sliding_window", json!(window));
                "phi3"
            }
            "gptneox" => {
                set("use_parallel_residual", parallel(true)?);
                "gpt_neox"
            }
            "falcon" => {
                set("num_kv_heads", json!(s.kv_heads));
                set("multi_query", json!(s.kv_heads == 1));
                set("new_decoder_architecture", json!(self.has("blk.0.attn_norm_2.weight")));
                set("ffn_hidden_size", json!(s.ffn));
                set("bias", json!(biased("attn_output")));
                "falcon"
            }
            "starcoder2" => {
                set("use_bias", json!(biased("attn_q")));
                set("sliding_window", json!(window));
                "starcoder2"
            }
            "stablelm" => {
                set("use_parallel_residual", parallel(false)?);
                set("use_qkv_bias", json!(biased("attn_q")));
                set("qk_layernorm", json!(self.has("blk.0.attn_q_norm.weight")));
                "stablelm"
            }
            "olmo2" => "olmo2",
            _ => {
                set("logit_scale", json!(self.number("logit_scale")?));
                set("use_qk_norm", json!(self.has("blk.0.attn_q_norm.weight")));
                "cohere"
            }
        })
    }

    fn granite(&self, set: &mut dyn FnMut(&str, Value)) -> Result<(), CheckpointError> {
        let fields = [
            ("attention_multiplier", "attention.scale"),
            ("embedding_multiplier", "embedding_scale"),
            ("residual_multiplier", "residual_scale"),
            ("logits_scaling", "logit_scale"),
        ];
        for (field, key) in fields {
            set(field, json!(self.number(key)?.filter(|scale| *scale != 0.0)));
        }
        Ok(())
    }

    fn qwen_moe(&self, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        set("moe_intermediate_size", json!(self.whole("expert_feed_forward_length")?));
        set("decoder_sparse_step", json!(1));
        if self.kind == "qwen3moe" {
            set("norm_topk_prob", json!(true));
            return Ok("qwen3_moe");
        }
        set("shared_expert_intermediate_size", json!(self.whole("expert_shared_feed_forward_length")?));
        set("norm_topk_prob", json!(false));
        Ok("qwen2_moe")
    }

    /// The format has no key for `query_pre_attn_scalar`: it is the head width, but for the model of 46 layers.
    fn gemma2(
        &self,
        s: &Sizes,
        window: Option<u64>,
        set: &mut dyn FnMut(&str, Value),
    ) -> Result<&'static str, CheckpointError> {
        set("query_pre_attn_scalar", json!(if s.layers == 46 { s.hidden / s.heads } else { s.head_dim }));
        for field in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.number(field)? {
                set(field, json!(cap));
            }
        }
        if let Some(window) = window {
            set("sliding_window", json!(window));
        }
        Ok("gemma2")
    }
}
