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
        let window = self.whole("attention.sliding_window")?.filter(|w| *w > 0);
        match self.kind {
            "llama" | "granite" | "arcee" | "smollm3" | "nemotron" | "seed_oss" => self.llama(window, set),
            "gemma2" => self.gemma2(s, window, set),
            "gemma3" => self.gemma3(s, window, set),
            "cohere2" | "exaone4" => self.every_fourth(s, window, set),
            "olmo2" if window.is_some() => self.every_fourth(s, window, set),
            "qwen2moe" | "qwen3moe" => self.qwen_moe(set),
            "deepseek2" => self.deepseek(s, set),
            "falcon" => self.falcon(s, set),
            _ => self.plain(window, set),
        }
    }

    fn biased(&self, part: &str) -> bool {
        self.has(&format!("blk.0.{part}.bias"))
    }

    /// Llama and what has its fields.
    fn llama(&self, window: Option<u64>, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        if self.kind == "llama" && self.whole("expert_count")?.is_some_and(|n| n > 0) {
            set("sliding_window", json!(window));
            return Ok("mixtral");
        }
        if self.kind == "llama" && window.is_some() {
            set("sliding_window", json!(window));
            return Ok("mistral");
        }
        // q, k and v biased and the output not: what Qwen2 writes
        if self.kind == "llama" && self.biased("attn_q") && !self.biased("attn_output") {
            return Ok("qwen2");
        }
        set("attention_bias", json!(self.biased("attn_q")));
        set("mlp_bias", json!(self.biased("ffn_down")));
        Ok(match self.kind {
            "granite" => {
                self.granite(set)?;
                "granite"
            }
            "seed_oss" => {
                set("attention_out_bias", json!(self.biased("attn_output")));
                "seed_oss"
            }
            "smollm3" => {
                set("no_rope_layer_interval", json!(4));
                "smollm3"
            }
            "arcee" => "arcee",
            "nemotron" => "nemotron",
            _ => "llama",
        })
    }

    /// All layers but every fourth have a window.
    fn every_fourth(
        &self,
        s: &Sizes,
        window: Option<u64>,
        set: &mut dyn FnMut(&str, Value),
    ) -> Result<&'static str, CheckpointError> {
        self.windows(s, window, 4, set)?;
        Ok(match self.kind {
            "exaone4" => "exaone4",
            "olmo2" => {
                self.two_ropes(s, self.number("rope.freq_base")?.unwrap_or(10000.0), set)?;
                "olmo3"
            }
            _ => {
                set("logit_scale", json!(self.number("logit_scale")?));
                "cohere2"
            }
        })
    }

    fn falcon(&self, s: &Sizes, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        let two_norms = self.has("blk.0.attn_norm_2.weight");
        set("num_kv_heads", json!(s.kv_heads));
        set("multi_query", json!(s.kv_heads == 1));
        set("new_decoder_architecture", json!(two_norms || !(s.kv_heads == 1 || s.kv_heads == s.heads)));
        set("num_ln_in_parallel_attn", json!(if two_norms { 2 } else { 1 }));
        set("ffn_hidden_size", json!(s.ffn));
        set("bias", json!(self.biased("attn_output")));
        Ok("falcon")
    }

    /// Families with a field or two.
    fn plain(&self, window: Option<u64>, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        let parallel = |default| {
            let given = self.header.metadata.flag(&self.key("use_parallel_residual"))?;
            Ok::<_, CheckpointError>(json!(given.unwrap_or(default)))
        };
        Ok(match self.kind {
            "qwen2" => "qwen2",
            "qwen3" => "qwen3",
            "gemma" => "gemma",
            "olmo2" => "olmo2",
            "olmoe" => "olmoe",
            "phi2" => "phi",
            "phi3" => {
                set("sliding_window", json!(window));
                "phi3"
            }
            "chatglm" | "glm4" => {
                set("attention_bias", json!(self.biased("attn_q") || self.biased("attn_qkv")));
                if self.kind == "glm4" { "glm4" } else { "glm" }
            }
            "ernie4_5" => {
                set("use_bias", json!(self.biased("attn_output")));
                "ernie4_5"
            }
            "olmo" => {
                set("clip_qkv", json!(self.number("attention.clamp_kqv")?.filter(|clip| *clip != 0.0)));
                "olmo"
            }
            "gptneox" => {
                set("use_parallel_residual", parallel(true)?);
                "gpt_neox"
            }
            "starcoder2" => {
                set("use_bias", json!(self.biased("attn_q")));
                set("sliding_window", json!(window));
                "starcoder2"
            }
            "stablelm" => {
                set("use_parallel_residual", parallel(false)?);
                set("use_qkv_bias", json!(self.biased("attn_q")));
                set("qk_layernorm", json!(self.has("blk.0.attn_q_norm.weight")));
                "stablelm"
            }
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

    /// Families that took over GPT-2's field names, or have names of their own; gives back the `model_type`.
    pub(super) fn gpt(&self, s: &Sizes, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        let metadata = &self.header.metadata;
        let epsilon = self.epsilon("layer_norm_epsilon")?;
        set("layer_norm_epsilon", epsilon);
        let wants = |found: u64, name: &str, wanted: u64| match found == wanted {
            true => Ok(()),
            false => Err(metadata.wrong(&self.key(name), &format!("{wanted} in this family"))),
        };
        if self.kind != "starcoder" {
            wants(s.kv_heads, "attention.head_count_kv", s.heads)?;
        }
        if s.head_dim != s.hidden / s.heads {
            return Err(metadata.wrong(&self.key("attention.key_length"), &format!("{}", s.hidden / s.heads)));
        }
        match self.kind {
            "bloom" => {
                wants(s.ffn, "feed_forward_length", 4 * s.hidden)?;
                set("hidden_size", json!(s.hidden));
                set("n_head", json!(s.heads));
                set("n_layer", json!(s.layers));
                set("seq_length", json!(s.context));
                return Ok("bloom");
            }
            "mpt" => {
                wants(s.ffn, "feed_forward_length", 4 * s.hidden)?;
                set("d_model", json!(s.hidden));
                set("n_heads", json!(s.heads));
                set("n_layers", json!(s.layers));
                set("max_seq_len", json!(s.context));
                let slope = self.number("attention.max_alibi_bias")?.unwrap_or(0.0);
                let clip = self.number("attention.clamp_kqv")?.filter(|clip| *clip != 0.0);
                set("attn_config", json!({ "alibi": slope != 0.0, "alibi_bias_max": slope, "clip_qkv": clip }));
                return Ok("mpt");
            }
            _ => {}
        }
        set("n_embd", json!(s.hidden));
        set("n_head", json!(s.heads));
        set("n_layer", json!(s.layers));
        set("n_inner", json!(s.ffn));
        set("n_positions", json!(s.context));
        Ok(match self.kind {
            "gptj" => {
                self.refuse_unread_below("rope.", &["dimension_count", "freq_base"])?;
                self.only("rope.freq_base", 10_000.0)?;
                set("rotary_dim", json!(self.whole("rope.dimension_count")?));
                "gptj"
            }
            "starcoder" => {
                wants(s.kv_heads, "attention.head_count_kv", 1)?;
                set("multi_query", json!(true));
                "gpt_bigcode"
            }
            _ => "gpt2",
        })
    }

    /// Latent attention, and experts in groups beside one that every token visits.
    fn deepseek(&self, s: &Sizes, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        let metadata = &self.header.metadata;
        let rope_dim = s.rope_dim();
        let absorbed = self.whole("attention.key_length_mla")?;
        let key = if absorbed.is_some() { "attention.key_length_mla" } else { "attention.key_length" };
        let nope = self.need(key)?.checked_sub(rope_dim).filter(|nope| *nope > 0);
        let nope =
            nope.ok_or_else(|| metadata.wrong(&self.key(key), &format!("more than the {rope_dim} that rotate")))?;
        let value = if absorbed.is_some() { "attention.value_length_mla" } else { "attention.value_length" };
        set("qk_rope_head_dim", json!(rope_dim));
        set("qk_nope_head_dim", json!(nope));
        set("v_head_dim", json!(self.need(value)?));
        set("kv_lora_rank", json!(self.need("attention.kv_lora_rank")?));
        set("q_lora_rank", json!(self.whole("attention.q_lora_rank")?.filter(|rank| *rank > 0)));
        // one shared head where keys stay compressed, as many as queries where they do not
        set("num_key_value_heads", json!(s.heads));
        set("head_dim", Value::Null);
        let n = self.whole("expert_count")?.unwrap_or(0);
        let dense = if n == 0 { s.layers as u64 } else { self.whole("leading_dense_block_count")?.unwrap_or(0) };
        set("first_k_dense_replace", json!(dense));
        let third = match self.number("expert_gating_func")? {
            None | Some(0.0 | 1.0) => false,
            Some(2.0) => true,
            Some(_) => return Err(metadata.wrong(&self.key("expert_gating_func"), "1 (softmax) or 2 (sigmoid)")),
        };
        let normalised = metadata.flag(&self.key("expert_weights_norm"))?.unwrap_or(false);
        let groups = self.whole("expert_group_count")?.filter(|groups| *groups > 1);
        if n > 0 {
            set("moe_intermediate_size", json!(self.need("expert_feed_forward_length")?));
            set("n_shared_experts", json!(self.whole("expert_shared_count")?.unwrap_or(0)));
            set(
                "routed_scaling_factor",
                json!(self.number("expert_weights_scale")?.filter(|w| *w != 0.0).unwrap_or(1.0)),
            );
            set("norm_topk_prob", json!(normalised));
            set("n_group", json!(groups.unwrap_or(1)));
            set("topk_group", json!(groups.map_or(Ok(Some(1)), |_| self.whole("expert_group_used_count"))?));
        }
        if third {
            return Ok("deepseek_v3");
        }
        set("topk_method", json!(if groups.is_some() { "group_limited_greedy" } else { "greedy" }));
        Ok("deepseek_v2")
    }

    /// The window, and which layers have one: by a list, or all but every n-th.
    fn windows(
        &self,
        s: &Sizes,
        window: Option<u64>,
        every: u64,
        set: &mut dyn FnMut(&str, Value),
    ) -> Result<(), CheckpointError> {
        set("sliding_window", json!(window));
        let (metadata, key) = (&self.header.metadata, self.key("attention.sliding_window_pattern"));
        let slides: Vec<bool> = match metadata.numbers(&self.parts[0], &key) {
            Ok(Some(list)) if list.len() == s.layers => list.iter().map(|slides| *slides != 0.0).collect(),
            Ok(Some(_)) => return Err(metadata.wrong(&key, &format!("one entry for each of {} layers", s.layers))),
            _ => {
                let every = metadata.whole(&key)?.unwrap_or(every);
                (0..s.layers as u64).map(|layer| every == 0 || layer % every < every - 1).collect()
            }
        };
        let kind = |slides: bool| if slides && window.is_some() { "sliding_attention" } else { "full_attention" };
        set("layer_types", slides.into_iter().map(kind).collect());
        Ok(())
    }

    /// The rotation of all layers, and of those with a window, which only another base distinguishes.
    fn two_ropes(&self, s: &Sizes, base: f64, set: &mut dyn FnMut(&str, Value)) -> Result<(), CheckpointError> {
        let base = self.number("rope.freq_base_swa")?.unwrap_or(base);
        let window = json!({ "rope_type": "default", "rope_theta": base });
        set("rope_parameters", json!({ "full_attention": self.rope(s)?, "sliding_attention": window }));
        Ok(())
    }

    /// The format has no key for `query_pre_attn_scalar`: it is the head width, but for the model of 62 layers.
    fn gemma3(
        &self,
        s: &Sizes,
        window: Option<u64>,
        set: &mut dyn FnMut(&str, Value),
    ) -> Result<&'static str, CheckpointError> {
        set("query_pre_attn_scalar", json!(if s.layers == 62 { s.hidden / s.heads } else { s.head_dim }));
        set("final_logit_softcapping", json!(self.number("final_logit_softcapping")?.filter(|cap| *cap != 0.0)));
        self.two_ropes(s, 10_000.0, set)?;
        self.windows(s, window, 6, set)?;
        Ok("gemma3_text")
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
