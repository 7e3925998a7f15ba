"""Makes GGUF files of Hugging Face folders with the packages `gguf` (names, blocks) and `llama-cpp-python` (K blocks), independently
of the reader and the writer that they test, and the logits of the dequantised weights with Hugging Face transformers.

  python make_gguf.py convert FOLDER OUT.gguf TYPE        every matrix as TYPE (F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1)
  python make_gguf.py fixtures OUT_FOLDER                 what tests/fixtures/gguf holds, from tests/fixtures
  python make_gguf.py cuts OUT_FILE                       token ids by llama.cpp for every way to cut text (tokenizer.ggml.pre)
  python make_gguf.py blocks OUT_FILE                     random blocks of every type and their values, for the unit tests
"""
import ctypes, json, os, re, sys, tempfile
import gguf, numpy as np
from gguf import GGMLQuantizationType as T

HERE = os.path.dirname(os.path.abspath(__file__))
KIND = dict(llama="llama", mistral="llama", mixtral="llama", qwen2="qwen2", qwen3="qwen3", qwen2_moe="qwen2moe", qwen3_moe="qwen3moe", gemma="gemma", gemma2="gemma2",
            gpt2="gpt2", phi="phi2", phi3="phi3", gpt_neox="gptneox", falcon="falcon", starcoder2="starcoder2", stablelm="stablelm", olmo2="olmo2", granite="granite", cohere="command-r")
ARCH = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
PRE = {r"\p{N}{1,3}": "llama-bpe", r"\p{L}+|\p{N}| ?": "qwen2"}

def tensors_of(folder):
    from safetensors.numpy import load_file
    return load_file(f"{folder}/model.safetensors")

def paired(w, heads):
    """Halves to pairs, as the converter of Llama does."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)

def unpaired(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)

def converted(config, tensors):
    """(name in GGUF, values) of every tensor."""
    kind = KIND[config["model_type"]]; layers = config.get("num_hidden_layers") or config["n_layer"]; names = gguf.get_tensor_name_map(ARCH[kind], layers)
    heads = config.get("num_attention_heads") or config["n_head"]; kv = config.get("num_key_value_heads") or heads; out, experts, per_head = {}, {}, {}
    for name, w in tensors.items():
        if name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")): continue
        if kind in ("llama", "granite"):
            if re.search(r"q_proj\.(weight|bias)$", name): w = paired(w, heads)
            if re.search(r"k_proj\.(weight|bias)$", name): w = paired(w, kv)
        if kind.startswith("gemma") and name.endswith("norm.weight"): w = w + 1
        if kind == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", name): w = w.T
        if "query_key_value" in name and kind == "gptneox":
            w = w.reshape(heads, 3, -1, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)
        if "query_key_value" in name and kind == "falcon":
            groups = config["num_kv_heads"] if config["new_decoder_architecture"] else 1; d = config["hidden_size"] // heads
            g = w.reshape(groups, heads // groups + 2, d, *w.shape[1:])
            w = np.concatenate([g[:, :-2].reshape(-1, *w.shape[1:]), g[:, -2].reshape(-1, *w.shape[1:]), g[:, -1].reshape(-1, *w.shape[1:])])
        if m := re.match(r"(.*layers\.(\d+)\.)(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(\w+)\.weight", name):
            part = {"w1": "gate", "w2": "down", "w3": "up"}.get(m[4], m[4].replace("_proj", "")); experts.setdefault(f"blk.{m[2]}.ffn_{part}_exps.weight", {})[int(m[3])] = w; continue
        if m := re.match(r".*layers\.(\d+)\.self_attn\.([qk])_layernorm\.norms\.(\d+)\.weight", name):
            per_head.setdefault(f"blk.{m[1]}.attn_{m[2]}_norm.weight", {})[int(m[3])] = w; continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias")); assert new, name
        if new.endswith("ffn_gate_inp_shexp.weight"): w = w.reshape(-1)
        out[new] = np.ascontiguousarray(w)
    for group in (experts, per_head): out.update({name: np.stack([parts[i] for i in sorted(parts)]) for name, parts in group.items()})
    if config.get("tie_word_embeddings", True) and kind != "falcon": out.pop("output.weight", None)
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        d = config["head_dim"]; f = 1.0 / rope["rope_theta"] ** (np.arange(0, d, 2, dtype=np.float32) / d); wave = 2 * np.pi / f
        lo, hi, old = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]; s = (old / wave - lo) / (hi - lo)
        out["rope_freqs.weight"] = np.where(wave < old / hi, 1.0, np.where(wave > old / lo, rope["factor"], 1 / ((1 - s) / rope["factor"] + s))).astype(np.float32)
    if rope.get("rope_type") == "longrope":
        for part in ("short", "long"): out[f"rope_factors_{part}.weight"] = np.array(rope[f"{part}_factor"], dtype=np.float32)
    return kind, out

def metadata(w, config, kind):
    c = lambda *names: next((config[n] for n in names if config.get(n) is not None), None)
    hidden, heads = c("hidden_size", "n_embd"), c("num_attention_heads", "n_head")
    w.add_block_count(c("num_hidden_layers", "n_layer")); w.add_context_length(c("max_position_embeddings", "n_positions")); w.add_embedding_length(hidden)
    w.add_feed_forward_length(c("ffn_hidden_size", "intermediate_size", "n_inner") or 4 * hidden); w.add_head_count(heads)
    kv = c("num_key_value_heads") or heads
    if kind == "falcon": kv = config["num_kv_heads"] if config["new_decoder_architecture"] else 1
    w.add_head_count_kv(kv); w.add_vocab_size(config["vocab_size"])
    if rms := c("rms_norm_eps"): w.add_layer_norm_rms_eps(rms)
    if eps := c("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"): w.add_layer_norm_eps(eps)
    d = c("head_dim") or hidden // heads; w.add_key_length(d); w.add_value_length(d)
    rope = config.get("rope_parameters") or {}
    if rope: w.add_rope_dimension_count(int(d * rope.get("partial_rotary_factor", 1.0))); w.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") in ("linear", "yarn"): w.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"])); w.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn": w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope.get("rope_type") == "longrope":
        old = config["original_max_position_embeddings"]; w.add_rope_scaling_orig_ctx_len(old); w.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(config["max_position_embeddings"] / old) / np.log(old))))
    if n := c("num_local_experts", "num_experts"): w.add_expert_count(n); w.add_expert_used_count(config["num_experts_per_tok"])
    if n := c("moe_intermediate_size"): w.add_expert_feed_forward_length(n)
    if n := c("shared_expert_intermediate_size"): w.add_expert_shared_feed_forward_length(n)
    if kind in ("gemma2", "phi3") and c("sliding_window"): w.add_sliding_window(config["sliding_window"])
    if kind == "gemma2": w.add_attn_logit_softcapping(config["attn_logit_softcapping"]); w.add_final_logit_softcapping(config["final_logit_softcapping"])
    if kind == "granite": w.add_attention_scale(config["attention_multiplier"]); w.add_embedding_scale(config["embedding_multiplier"]); w.add_residual_scale(config["residual_multiplier"]); w.add_logit_scale(config["logits_scaling"])
    if kind == "command-r": w.add_logit_scale(config["logit_scale"])
    if "use_parallel_residual" in config: w.add_parallel_residual(config["use_parallel_residual"])

def tokenizer(w, folder, config):
    file = f"{folder}/tokenizer.json"
    if not os.path.exists(file): w.add_tokenizer_model("none"); return
    t = json.load(open(file)); model = t["model"]; ids = dict(model["vocab"]); ids.update({a["content"]: a["id"] for a in t["added_tokens"]})
    tokens = [None] * config["vocab_size"]
    for text, i in ids.items(): tokens[i] = text
    special = {a["id"] for a in t["added_tokens"]}; kinds = [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(len(tokens))]
    for i, text in enumerate(tokens):
        if text is None: tokens[i], kinds[i] = f"[PAD{i}]", gguf.TokenType.UNUSED
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", text): kinds[i] = gguf.TokenType.BYTE
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    if model["byte_fallback"]:
        kinds[ids[model["unk_token"]]] = gguf.TokenType.UNKNOWN; rank = {}
        for i, m in enumerate(merges): rank.setdefault(m.replace(" ", ""), i)
        w.add_tokenizer_model("llama"); w.add_token_scores([-float(rank.get(text, 10 ** 6 + i)) for i, text in enumerate(tokens)])
    else:
        w.add_tokenizer_model("gpt2"); w.add_token_merges(merges); pattern = json.dumps(t["pre_tokenizer"]).replace("\\\\", "\\")
        w.add_tokenizer_pre(next((pre for mark, pre in PRE.items() if mark in pattern), "gpt-2"))
    w.add_token_list(tokens); w.add_token_types(kinds); template = json.dumps(t["post_processor"])
    if config.get("bos_token_id") is not None: w.add_bos_token_id(config["bos_token_id"])
    if config.get("eos_token_id") is not None: w.add_eos_token_id(config["eos_token_id"])
    w.add_add_bos_token("SpecialToken" in template)

def write(out, folder, config, kind, tensors, type_of):
    w = gguf.GGUFWriter(out, kind); w.add_name(os.path.basename(folder))
    if kind == "olmo2": w.add_custom_alignment(128)   # one file with another alignment than 32
    metadata(w, config, kind); tokenizer(w, folder, config)
    for name, x in tensors.items():
        q = type_of(name, x) if x.ndim > 1 and "_norm" not in name and "ffn_gate_inp" not in name and "position_embd" not in name else T.F32
        x = x.astype(np.float32); w.add_tensor(name, x if q == T.F32 else gguf.quants.quantize(x, q), raw_dtype=q)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

def convert(folder, out, type_of):
    config = json.load(open(f"{folder}/config.json")); kind, tensors = converted(config, tensors_of(folder)); write(out, folder, config, kind, tensors, type_of)

def dequantised(file):
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]) for t in gguf.GGUFReader(file).tensors}

def expected(file, config, out):
    """Logits of the dequantised weights of a Llama, GPT-2 or Qwen2 file."""
    import torch, transformers
    from safetensors.torch import save_file
    torch.set_num_threads(1); torch.set_grad_enabled(False)
    kind, heads = KIND[config["model_type"]], config.get("num_attention_heads") or config["n_head"]; kv = config.get("num_key_value_heads") or heads
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config), dtype=torch.float32, attn_implementation="eager").eval()
    back = gguf.get_tensor_name_map(ARCH[kind], config.get("num_hidden_layers") or config["n_layer"]); values = dequantised(file); state = model.state_dict()
    for name, w in state.items():
        new = back.get_name(name, try_suffixes=(".weight", ".bias"))
        if new == "output.weight" and new not in values: new = "token_embd.weight"
        x = values[new]
        if kind == "llama" and re.search(r"[qk]_proj\.(weight|bias)$", name): x = unpaired(x, heads if "q_proj" in name else kv)
        if kind == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight$", name): x = x.T
        w.copy_(torch.from_numpy(np.ascontiguousarray(x)))
    ids = [(37 * i * i + 11 * i + 5) % config["vocab_size"] for i in range(24)]
    save_file({"input_ids": torch.tensor(ids, dtype=torch.float32), "logits": model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].contiguous()}, out)

def k_quantised(source, out, kind):
    import llama_cpp
    p = llama_cpp.llama_model_quantize_default_params(); p.nthread = 1; p.ftype = kind; p.pure = True
    assert llama_cpp.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(p)) == 0

def k_fixture(root, scratch):
    """A Llama of one layer, 256 wide, each matrix in another K block, as llama.cpp chose the codes."""
    import torch, transformers, llama_cpp
    config = transformers.LlamaConfig(vocab_size=96, hidden_size=256, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=1, head_dim=16, intermediate_size=256,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    torch.manual_seed(5); model = transformers.LlamaForCausalLM(config); folder = f"{scratch}/k"
    for name, w in model.named_parameters(): w.data.copy_(torch.randn(w.shape) * (0.06 if w.dim() > 1 else 0.2) + (0 if w.dim() > 1 else 1))
    model.save_pretrained(folder); config = json.load(open(f"{folder}/config.json")); convert(folder, f"{scratch}/k.gguf", lambda *_: T.F32)
    ftypes = {T.Q2_K: llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K, T.Q3_K: llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_M, T.Q4_K: llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, T.Q5_K: llama_cpp.LLAMA_FTYPE_MOSTLY_Q5_K_M, T.Q6_K: llama_cpp.LLAMA_FTYPE_MOSTLY_Q6_K}
    made = {}
    for q, ftype in ftypes.items():
        k_quantised(f"{scratch}/k.gguf", f"{scratch}/k.{q.name}", ftype); made[q] = {t.name: t for t in gguf.GGUFReader(f"{scratch}/k.{q.name}").tensors}
    wanted = {"attn_q": T.Q2_K, "attn_k": T.Q3_K, "attn_v": T.Q6_K, "ffn_gate": T.Q4_K, "ffn_up": T.Q5_K, "ffn_down": T.Q6_K, "token_embd": T.Q6_K}
    out = f"{root}/k-blocks.gguf"; w = gguf.GGUFWriter(out, "llama"); w.add_name("k-blocks"); metadata(w, config, "llama"); w.add_tokenizer_model("none")
    for t in gguf.GGUFReader(f"{scratch}/k.gguf").tensors:
        q = next((q for part, q in wanted.items() if part in t.name and "norm" not in t.name), None)
        if q is not None:
            chosen = made[q][t.name]; assert chosen.tensor_type == q, (t.name, chosen.tensor_type); w.add_tensor(t.name, np.array(chosen.data), raw_dtype=q); continue
        x = np.array(t.data); w.add_tensor(t.name, gguf.quants.quantize(x, T.Q4_0) if x.ndim > 1 else x, raw_dtype=T.Q4_0 if x.ndim > 1 else T.F32)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    expected(out, config, f"{root}/k-blocks.safetensors")

def fixtures(root):
    os.makedirs(root, exist_ok=True); source = lambda name: f"{HERE}/fixtures/{name}"
    for name in ("falcon-40b-form", "gemma", "gpt-neox", "granite", "llama-bias", "llama-rope-linear", "llama-rope-yarn", "mixtral-top1", "olmo2", "phi", "phi3-longrope",
                 "qwen3", "qwen3-moe", "stablelm-parallel", "cohere-qk-norm"):
        if os.path.exists(source(name)): convert(source(name), f"{root}/{name}.gguf", lambda *_: T.F32)
    mixed = {"attn_q": T.Q4_1, "attn_k": T.Q5_0, "attn_v": T.Q5_1, "attn_output": T.BF16, "ffn_gate": T.Q4_0, "ffn_up": T.Q8_0, "ffn_down": T.Q4_0}
    blocks_of = lambda q: lambda name, x: q if x.shape[-1] % 32 == 0 else T.F16
    by_part = lambda name, x: blocks_of(next((q for part, q in mixed.items() if part in name), T.F16))(name, x)
    for name, choice in {"llama-mha": by_part, "llama3-gqa": blocks_of(T.Q4_0), "qwen2": blocks_of(T.Q8_0), "gpt2": blocks_of(T.F16)}.items():
        convert(source(name), f"{root}/{name}.gguf", choice); expected(f"{root}/{name}.gguf", json.load(open(f"{source(name)}/config.json")), f"{root}/{name}.safetensors")
    with tempfile.TemporaryDirectory() as scratch: k_fixture(root, scratch)

def blocks(out):
    """Three blocks of random bytes per type (finite scales) and what gguf.quants makes of them; values and their blocks."""
    from safetensors.numpy import save_file
    g, saved = np.random.default_rng(3), {}
    halves = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.IQ2_XXS: [0],
        T.IQ2_XS: [0], T.IQ2_S: [0], T.IQ3_XXS: [0], T.IQ3_S: [0], T.IQ1_S: [0], T.IQ1_M: [], T.TQ1_0: [52], T.TQ2_0: [64], T.MXFP4: [], T.NVFP4: []}
    for q, places in halves.items():
        size = gguf.GGML_QUANT_SIZES[q][1]; b = g.integers(0, 256, (3, size), dtype=np.uint8)
        if q == T.IQ1_M: b[:, 55] = b[:, 55] & 15 | 32   # its f16 scale is spread over the high halves of four bytes
        if q == T.MXFP4: b[:, 0] = [0, 1, 120]
        if q == T.NVFP4: b[:, :4] &= 127
        for at in places: b[:, at:at + 2] = (g.standard_normal(3) * 0.02).astype(np.float16)[:, None].view(np.uint8)
        saved[f"{q.name}.bytes"] = b.reshape(-1).astype(np.float32); saved[f"{q.name}.values"] = gguf.quants.dequantize(b, q).reshape(-1)
    x = (g.standard_normal((40, 32)) * np.exp(g.standard_normal((40, 1)))).astype(np.float32); x[0], x[1], x[2, 3], x[2, 9] = 0, 0.5, 7, -7; x = x.reshape(-1); saved["source"] = x
    for q in (T.Q4_0, T.Q4_1, T.Q8_0, T.BF16): saved[f"{q.name}.encoded"] = gguf.quants.quantize(x.reshape(1, -1), q).reshape(-1).view(np.uint8).astype(np.float32)
    saved["F16.encoded"] = x.astype(np.float16).view(np.uint8).astype(np.float32)
    save_file(saved, out)

PRES = ("gpt-2", "llama-bpe", "dbrx", "qwen2", "stablelm2", "smollm", "falcon", "default", "tekken", "gpt-4o", "deepseek-coder", "deepseek-v3", "chatglm-bpe", "starcoder")

def cuts(out):
    """A vocabulary in which any two neighbours of a small alphabet merge, so that every cut shows in the ids."""
    import random, llama_cpp
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]; rest = [b for b in range(256) if b not in printable]
    letter = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(rest)}; spell = lambda text: "".join(letter[b] for b in text.encode())
    small = ["a", "s", "T", "B", "1", "2", " ", "\n", "\r", "\t", "'", "!", "/", "$", "é", "漢"]; tokens, merges = list(letter.values()), []
    for c in small:
        parts = list(spell(c))
        while len(parts) > 1: merges.append(f"{parts[0]} {parts[1]}"); tokens.append(parts[0] + parts[1]); parts[:2] = [tokens[-1]]
    pairs = [(spell(a), spell(b)) for a in small for b in small]; random.Random(2).shuffle(pairs); merges += [f"{a} {b}" for a, b in pairs]; tokens += [a + b for a, b in pairs]
    g = random.Random(7); texts = ["".join(g.choices(small + [" ", "a", "1", "\n"], k=g.randint(4, 28))) for _ in range(40)] + ["It's 12345 o'clock, THEY'LL go", "fooBar HTTPServer x=1;\n\n\n  y", "a  b   c    \n   "]
    texts = [t for t in texts]; ids = {}
    for pre in PRES:
        with tempfile.TemporaryDirectory() as scratch:
            f = f"{scratch}/v.gguf"; w = gguf.GGUFWriter(f, "llama"); metadata(w, dict(hidden_size=32, num_attention_heads=1, num_hidden_layers=1, intermediate_size=32, max_position_embeddings=8, vocab_size=len(tokens), rms_norm_eps=1e-5), "llama")
            w.add_tokenizer_model("gpt2"); w.add_tokenizer_pre(pre); w.add_token_list(tokens); w.add_token_types([1] * len(tokens)); w.add_token_merges(merges); w.add_bos_token_id(0); w.add_eos_token_id(0)
            w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
            model = llama_cpp.Llama(f, vocab_only=True, verbose=False); ids[pre] = [model.tokenize(t.encode(), add_bos=False, special=False) for t in texts]
    text = json.dumps(dict(tokens=tokens, merges=merges, texts=texts, ids=ids), ensure_ascii=False); open(out, "w").write(text.replace("]], ", "]],\n") + "\n")

if __name__ == "__main__":
    command, *given = sys.argv[1:]
    if command == "convert": convert(given[0], given[1], lambda _, x: T[given[2]] if x.shape[-1] % gguf.GGML_QUANT_SIZES[T[given[2]]][0] == 0 else T.F16)
    else: dict(fixtures=fixtures, blocks=blocks, cuts=cuts)[command](*given)
