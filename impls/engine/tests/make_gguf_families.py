"""Makes one small GGUF file for each family that make_gguf.py does not know, with the package `gguf` (names, keys), as llama.cpp's
converter does it: tests/fixtures/gguf/families/NAME.gguf, NAME.json (the config.json) and, where tests/fixtures has no folder NAME,
NAME.safetensors. The logits to compare with are those of the Hugging Face checkpoint.

  python make_gguf_families.py OUT_FOLDER
"""
import json, os, re, sys
import gguf, numpy as np
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ARCH = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
KIND = dict(arcee="arcee", bloom="bloom", cohere2="cohere2", deepseek_v2="deepseek2", deepseek_v3="deepseek2", ernie4_5="ernie4_5", exaone4="exaone4", falcon="falcon", gemma3_text="gemma3",
            glm="chatglm", glm4="glm4", gpt_bigcode="starcoder", gptj="gptj", mpt="mpt", nemotron="nemotron", olmo="olmo", olmo3="olmo2", olmoe="olmoe", seed_oss="seed_oss", smollm3="smollm3")
# what the format has no word for is set to what llama.cpp computes
PATCHES = {"gemma3": dict(query_pre_attn_scalar=12), "mpt": {"attn_config": dict(alibi=True, alibi_bias_max=8, clip_qkv=0.8)}, "olmoe": dict(clip_qkv=None),
           "smollm3": dict(no_rope_layers=[1, 1, 1, 0], use_sliding_window=False, layer_types=["full_attention"] * 4, num_hidden_layers=4)}
BASE = dict(vocab_size=32, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False)
OWN = {"arcee": dict(BASE, model_type="arcee", hidden_act="relu2"), "ernie4_5": dict(BASE, model_type="ernie4_5", tie_word_embeddings=True, rope_parameters=dict(rope_theta=500000.0, rope_type="default")), "glm": dict(BASE, model_type="glm", attention_bias=True, rope_parameters=dict(rope_theta=10000.0, rope_type="default", partial_rotary_factor=0.5)),
       "seed_oss": dict(BASE, model_type="seed_oss", attention_bias=True)}
FOLDERS = ("bloom", "cohere2", "deepseek-v2", "deepseek-v2-moe", "deepseek-v2-q-lora", "deepseek-v2-yarn", "deepseek-v3", "exaone4", "falcon-7b-form", "gemma3", "glm4", "gpt-bigcode", "gptj", "mpt", "nemotron", "olmo", "olmo3", "olmoe", "smollm3")

def own(config):
    """Random tensors under Llama's names."""
    g = np.random.default_rng(7); n = lambda *s: (g.standard_normal(s) * (0.3 if len(s) > 1 else 0.2) + (0 if len(s) > 1 else 1)).astype(np.float32)
    h, f, d, q, k = config["hidden_size"], config["intermediate_size"], config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]; t = {"model.embed_tokens.weight": n(config["vocab_size"], h), "model.norm.weight": n(h)}
    if not config["tie_word_embeddings"]: t["lm_head.weight"] = n(config["vocab_size"], h)
    for l in range(config["num_hidden_layers"]):
        p = f"model.layers.{l}."; t[p + "input_layernorm.weight"] = n(h); t[p + "post_attention_layernorm.weight"] = n(h)
        for c, rows in (("q", q * d), ("k", k * d), ("v", k * d)):
            t[f"{p}self_attn.{c}_proj.weight"] = n(rows, h)
            if config.get("attention_bias"): t[f"{p}self_attn.{c}_proj.bias"] = n(rows) - 1
        t[p + "self_attn.o_proj.weight"] = n(h, q * d); t[p + "mlp.down_proj.weight"] = n(h, f)
        if config["model_type"] == "glm": t[p + "mlp.gate_up_proj.weight"] = n(2 * f, h); continue
        t[p + "mlp.up_proj.weight"] = n(f, h)
        if config["model_type"] != "arcee": t[p + "mlp.gate_proj.weight"] = n(f, h)
    return t

def paired(w, heads): return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)

def converted(c, tensors):
    kind = KIND[c["model_type"]]; heads = c.get("num_attention_heads") or c.get("n_head") or c["n_heads"]; kv = c.get("num_key_value_heads") or heads; layers = c.get("num_hidden_layers") or c.get("n_layer") or c["n_layers"]
    names = gguf.get_tensor_name_map(ARCH[kind], layers); out, experts = {}, {}
    for name, w in tensors.items():
        if kind in ("arcee", "olmo", "smollm3") and (m := re.search(r"([qk])_proj\.(weight|bias)$", name)): w = paired(w, heads if m[1] == "q" else kv)
        if kind in ("gemma3", "nemotron") and name.endswith("norm.weight"): w = w + 1
        if "query_key_value" in name and kind == "bloom": w = w.reshape(heads, 3, -1, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)
        if kind == "bloom": name = name.replace("transformer.", "")
        if m := re.match(r".*layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)_proj\.weight", name): experts.setdefault(f"blk.{m[1]}.ffn_{m[3]}_exps.weight", {})[int(m[2])] = w; continue
        if m := re.match(r".*layers\.(\d+)\.mlp\.gate\.e_score_correction_bias", name): out[f"blk.{m[1]}.exp_probs_b.bias"] = w; continue
        if m := re.match(r"(.*layers\.(\d+)\.self_attn\.)kv_b_proj\.weight", name):
            both = w.reshape(heads, c["qk_nope_head_dim"] + c["v_head_dim"], -1); n = c["qk_nope_head_dim"]
            if c["old"]: out[f"blk.{m[2]}.attn_kv_b.weight"] = w; continue
            out[f"blk.{m[2]}.attn_k_b.weight"] = both[:, :n].swapaxes(1, 2); out[f"blk.{m[2]}.attn_v_b.weight"] = both[:, n:]; continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias")); assert new, name
        out[new] = w
    out.update({name: np.stack([parts[i] for i in sorted(parts)]) for name, parts in experts.items()})
    if c.get("tie_word_embeddings", True): out.pop("output.weight", None)
    if kind in ("nemotron", "olmo2", "olmoe", "gptj") and "output.weight" not in out: out["output.weight"] = out["token_embd.weight"]
    return kind, {name: np.ascontiguousarray(w.astype(np.float32)) for name, w in out.items()}

def metadata(w, c, kind):
    g = lambda *names: next((c[n] for n in names if c.get(n) is not None), None); a = kind
    hidden, heads, layers = g("hidden_size", "n_embd", "d_model"), g("num_attention_heads", "n_head", "n_heads"), g("num_hidden_layers", "n_layer", "n_layers"); kv = g("num_key_value_heads") or heads
    w.add_block_count(layers); w.add_context_length(g("max_position_embeddings", "n_positions", "seq_length", "max_seq_len") or 2048); w.add_embedding_length(hidden)
    w.add_feed_forward_length(g("ffn_hidden_size", "intermediate_size", "n_inner") or 4 * hidden); w.add_head_count(heads); w.add_vocab_size(c["vocab_size"])
    if kind in ("falcon", "starcoder"): kv = 1
    if rms := g("rms_norm_eps"): w.add_layer_norm_rms_eps(rms)
    if eps := g("layer_norm_eps", "layer_norm_epsilon", "norm_eps") or (1e-5 if kind in ("olmo", "mpt") else None): w.add_layer_norm_eps(eps)
    d = g("head_dim") or hidden // heads; rope = c.get("rope_parameters") or {}; full = rope.get("full_attention", rope)
    if full:
        w.add_rope_freq_base(full["rope_theta"])
        if full["rope_type"] in ("linear", "yarn"): w.add_rope_scaling_type(gguf.RopeScalingType(full["rope_type"])); w.add_rope_scaling_factor(full["factor"])
        if full["rope_type"] == "yarn": w.add_rope_scaling_orig_ctx_len(full["original_max_position_embeddings"])
    if "sliding_attention" in rope: w.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    if kind in ("glm4", "chatglm", "nemotron"): w.add_rope_dimension_count(int(d * full["partial_rotary_factor"]))
    if kind == "gptj": w.add_rope_dimension_count(c["rotary_dim"])
    if kind == "cohere2": w.add_rope_dimension_count(d); w.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if kind in ("cohere2", "exaone4", "gemma3", "olmo2"): w.add_sliding_window(c["sliding_window"]); w.add_sliding_window_pattern([t == "sliding_attention" for t in c["layer_types"]])
    if kind == "cohere2": w.add_logit_scale(c["logit_scale"])
    if kind == "mpt": w.add_max_alibi_bias(8.0); w.add_clamp_kqv(c["attn_config"]["clip_qkv"])
    if kind == "olmo": w.add_clamp_kqv(c["clip_qkv"])
    if n := g("num_experts", "n_routed_experts"): w.add_expert_count(n); w.add_expert_used_count(c["num_experts_per_tok"])
    if kind != "deepseek2":
        w.add_head_count_kv(kv); w.add_key_length(d); w.add_value_length(d); return
    nope, rotated, value, rank = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"]; w.add_rope_dimension_count(rotated); w.add_kv_lora_rank(rank)
    if c["old"]: w.add_head_count_kv(heads); w.add_key_length(nope + rotated); w.add_value_length(value)
    else: w.add_head_count_kv(1); w.add_key_length(rank + rotated); w.add_value_length(rank); w.add_key_length_mla(nope + rotated); w.add_value_length_mla(value)
    if c["q_lora_rank"]: w.add_q_lora_rank(c["q_lora_rank"])
    w.add_leading_dense_block_count(c["first_k_dense_replace"]); w.add_expert_feed_forward_length(c["moe_intermediate_size"]); w.add_expert_shared_count(c["n_shared_experts"]); w.add_expert_weights_scale(c["routed_scaling_factor"])
    if c["norm_topk_prob"]: w.add_expert_weights_norm(True)
    if c["model_type"] == "deepseek_v3": w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if c.get("topk_method") != "greedy": w.add_expert_group_count(c["n_group"]); w.add_expert_group_used_count(c["topk_group"])
    if "mscale_all_dim" in full: w.add_rope_scaling_yarn_log_mul(0.1 * full["mscale_all_dim"])

def make(root, name, config, tensors):
    # one file keeps keys and values in one matrix, as files were written before 2025
    config = dict(config, old=name == "deepseek-v2-q-lora"); kind, out = converted(config, tensors); config_text = json.dumps({k: v for k, v in config.items() if k != "old"})
    w = gguf.GGUFWriter(f"{root}/{name}.gguf", kind); w.add_name(name); metadata(w, config, kind); w.add_tokenizer_model("none")
    for tensor, x in out.items(): w.add_tensor(tensor, x)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close(); open(f"{root}/{name}.json", "w").write(config_text + "\n")

if __name__ == "__main__":
    root = sys.argv[1]; os.makedirs(root, exist_ok=True)
    for name in FOLDERS:
        folder = f"{HERE}/fixtures/{name}"; config = json.load(open(f"{folder}/config.json")) | PATCHES.get(name, {}); tensors = load_file(f"{folder}/model.safetensors")
        if name == "smollm3":   # one more layer, so that one does not rotate
            tensors |= {k.replace("layers.2.", "layers.3."): v[..., ::-1].copy() for k, v in tensors.items() if "layers.2." in k}; save_file(tensors, f"{root}/{name}.safetensors")
        make(root, name, config, tensors)
    for name, config in OWN.items(): tensors = own(config); save_file(tensors, f"{root}/{name}.safetensors"); make(root, name, config, tensors)
