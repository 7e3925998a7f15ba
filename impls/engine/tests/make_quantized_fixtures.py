"""Already quantized checkpoints in the layouts of GPTQ, AWQ and bitsandbytes, with the logits of their dequantised weights.

Usage: python make_quantized_fixtures.py FOLDER [NAME ...]   (torch, transformers, safetensors, numpy)

Every matrix is rounded to a grid, packed, written, read back from the file by a second routine that takes the bits apart one
by one (no code shared with the packing), and put into transformers as float32; those logits are what is expected.
"""
import copy, json, os, shutil, sys
import numpy as np, torch, transformers as t
from safetensors import safe_open
from safetensors.numpy import save_file
import make_fixtures as mf

torch.set_grad_enabled(False); torch.set_num_threads(1)
H = dict(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, rope_parameters=dict(rope_type="default", rope_theta=10000.0))
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
FP4 = [0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25, 0.0, -0.0052083334885537624, -0.6666666865348816, -1.0, -0.3333333432674408, -0.5, -0.1666666716337204, -0.25]

def gptq(bits, group, **k): return dict(method="gptq", bits=bits, group=group, **k)
FIXTURES = {
 "gptq-actorder-v2": (t.LlamaConfig, H, gptq(4, 32, act_order=True, v2=True), "GPTQ 4 bit, group 32, act-order with another order in each matrix, format v2, asymmetric"),
 "gptq-3bit": (t.LlamaConfig, H, gptq(3, 64), "GPTQ 3 bit, group 64, codes across words, asymmetric, v1"),
 "gptq-2bit-short-group": (t.LlamaConfig, dict(H, intermediate_size=112), gptq(2, 32, symmetric=True, act_order=True), "GPTQ 2 bit, act-order, a last group of 16 in down, symmetric, v1"),
 "gptq-8bit-head": (t.LlamaConfig, H, gptq(8, -1, head=True, v2=True), "GPTQ 8 bit, one grid per row, quantized head, v2"),
 "gptq-gpt2": (t.GPT2Config, dict(vocab_size=96, n_positions=128, n_embd=32, n_layer=2, n_head=4, n_inner=64, bos_token_id=1, eos_token_id=2), gptq(4, 16), "GPTQ 4 bit of GPT-2, whose plain weights are stored [in, out]"),
 "awq-qwen2-skipped": (t.Qwen2Config, H, dict(method="awq", group=32, skip=("v_proj", "down_proj")), "AWQ GEMM of Qwen2 (biases), v_proj and down_proj left in f16"),
 "nf4": (t.LlamaConfig, dict(H, tie_word_embeddings=True), dict(method="bnb", kind="nf4"), "bitsandbytes NF4, plain constants"),
 "nf4-double": (t.LlamaConfig, dict(H, tie_word_embeddings=True, intermediate_size=192), dict(method="bnb", kind="nf4", double=True), "bitsandbytes NF4, double quantized constants"),
 "fp4-crossing": (t.LlamaConfig, dict(H, tie_word_embeddings=True, intermediate_size=96), dict(method="bnb", kind="fp4"), "bitsandbytes FP4, blocks of 64 that cross the rows of down_proj"),
 "int8": (t.LlamaConfig, dict(H, tie_word_embeddings=True), dict(method="int8"), "LLM.int8() as bitsandbytes stores it"),
}

def grid(w, bits, group, symmetric, g_idx):
    """Codes [out, in], scales and zeros [groups, out]; w [out, in], the group of each input in g_idx."""
    top, n_groups = 2 ** bits - 1, int(g_idx.max()) + 1
    scales, zeros, q = np.zeros((n_groups, w.shape[0]), np.float16), np.zeros((n_groups, w.shape[0]), np.int64), np.zeros(w.shape, np.int64)
    for g in range(n_groups):
        at = np.nonzero(g_idx == g)[0]; low, high = np.minimum(w[:, at].min(1), 0), np.maximum(w[:, at].max(1), 0)
        if symmetric: high = np.maximum(high, -low); low = -high
        s = ((high - low) / top).astype(np.float16); z = np.full(len(s), (top + 1) // 2) if symmetric else np.clip(np.rint(-low / s), 1, top)
        scales[g], zeros[g] = s, z; q[:, at] = np.clip(np.rint(w[:, at] / s[:, None].astype(np.float64)) + z[:, None], 0, top)
    return q, scales, zeros

def stream(codes, bits):
    """Codes along the last axis as little-endian streams of bits in int32 words."""
    b = (codes[..., None] >> np.arange(bits)) & 1; b = b.reshape(*codes.shape[:-1], -1)
    assert b.shape[-1] % 32 == 0
    return (b.reshape(*b.shape[:-1], -1, 32).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(-1).astype(np.uint32).view(np.int32)

def pack_gptq(w, f, rng):
    n, k = w.shape; group = k if f["group"] == -1 else f["group"]
    g_idx = np.arange(k) // group
    if f.get("act_order"): g_idx = g_idx[np.argsort(rng.permutation(k))]
    q, s, z = grid(w, f["bits"], group, f.get("symmetric", False), g_idx)
    stored = z if f.get("v2") else z - 1
    return dict(qweight=np.ascontiguousarray(stream(q, f["bits"]).T), qzeros=stream(stored, f["bits"]), scales=s, g_idx=g_idx.astype(np.int32))

def bit_by_bit(words, bits):
    """Words [..., n] -> codes, one bit after the other."""
    raw = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little").reshape(*words.shape[:-1], -1)
    codes = np.zeros((*raw.shape[:-1], raw.shape[-1] // bits), np.int64)
    for i in range(codes.shape[-1]):
        for b in range(bits): codes[..., i] |= raw[..., i * bits + b].astype(np.int64) << b
    return codes

def read_gptq(get, f):
    q, z = bit_by_bit(get("qweight").T, f["bits"]).T, bit_by_bit(get("qzeros"), f["bits"])
    if not f.get("v2"): z = (z + 1) % 2 ** f["bits"]
    s, g = get("scales").astype(np.float32), get("g_idx")
    return (s[g] * (q - z[g]).astype(np.float32)).T

def pack_awq(w, f, rng):
    n, k = w.shape; q, s, z = grid(w, 4, f["group"], False, np.arange(k) // f["group"])
    def words(a): return sum(a.reshape(a.shape[0], -1, 8)[:, :, c].astype(np.uint64) << np.uint64(4 * i) for i, c in enumerate(AWQ_ORDER)).astype(np.uint32).view(np.int32)
    return dict(qweight=words(q.T), qzeros=words(z), scales=s)

def read_awq(get, f):
    def codes(words):
        out = np.zeros((words.shape[0], words.shape[1] * 8), np.int64)
        for row in range(words.shape[0]):
            for c in range(words.shape[1]):
                for i in range(8): out[row, 8 * c + AWQ_ORDER[i]] = int(words[row, c]) >> (4 * i) & 15
        return out
    q, z, s = codes(get("qweight")), codes(get("qzeros")), get("scales").astype(np.float32)
    rows = np.arange(q.shape[0]) // f["group"]
    return (s[rows] * (q - z[rows]).astype(np.float32)).T

def pack_bnb(w, f, rng):
    book = np.array(NF4 if f["kind"] == "nf4" else FP4, np.float32); flat = w.astype(np.float32).reshape(-1); blocks = -(-len(flat) // 64)
    padded = np.pad(flat, (0, blocks * 64 - len(flat))).reshape(blocks, 64); absmax = np.abs(padded).max(1)
    state = dict(quant_type=f["kind"], blocksize=64, dtype="float32", shape=list(w.shape)); out = {}
    if f.get("double"):
        offset = np.float32(absmax.mean()); rest = absmax - offset; outer = -(-blocks // 256)
        table = np.sort(np.concatenate([np.linspace(-1, 1, 255), [0.0031]])).astype(np.float32)   # any map serves; bitsandbytes' own is a dynamic one
        nested = np.array([np.abs(rest[i * 256:(i + 1) * 256]).max() for i in range(outer)], np.float32)
        codes = np.array([np.abs(table - r / nested[i // 256]).argmin() for i, r in enumerate(rest)], np.uint8)
        absmax = table[codes] * nested[np.arange(blocks) // 256] + offset
        out |= {"weight.absmax": codes, "weight.nested_absmax": nested, "weight.nested_quant_map": table}
        state |= dict(nested_blocksize=256, nested_dtype="float32", nested_offset=float(offset))
    else: out["weight.absmax"] = absmax
    codes = np.abs(padded[..., None] / absmax[:, None, None] - book).argmin(-1).reshape(-1)[:len(flat)].astype(np.uint8)
    out["weight"] = (codes[0::2] << 4 | codes[1::2])[:, None]; out["weight.quant_map"] = book
    out[f"weight.quant_state.bitsandbytes__{f['kind']}"] = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    return out

def read_bnb(get, f):
    state = json.loads(get(f"weight.quant_state.bitsandbytes__{f['kind']}").tobytes()); bits = np.unpackbits(get("weight").reshape(-1)).reshape(-1, 4)
    values = get("weight.quant_map")[bits @ np.array([8, 4, 2, 1])]; absmax = get("weight.absmax")
    if "nested_offset" in state: absmax = get("weight.nested_quant_map")[absmax] * np.repeat(get("weight.nested_absmax"), state["nested_blocksize"])[:len(absmax)] + np.float32(state["nested_offset"])
    return (values * np.repeat(absmax, state["blocksize"])[:len(values)]).reshape(state["shape"])

def pack_int8(w, f, rng):
    absmax = np.abs(w).max(1).astype(np.float32)
    return {"weight": np.rint(w * 127 / absmax[:, None]).astype(np.int8), "SCB": absmax, "weight_format": np.array(0, np.uint8)}

def read_int8(get, f): return get("weight").astype(np.float32) * (get("SCB") / np.float32(127))[:, None]

PACK = dict(gptq=pack_gptq, awq=pack_awq, bnb=pack_bnb, int8=pack_int8); READ = dict(gptq=read_gptq, awq=read_awq, bnb=read_bnb, int8=read_int8)

def quantization_config(f):
    if f["method"] == "gptq": return dict(quant_method="gptq", bits=f["bits"], group_size=f["group"], desc_act=bool(f.get("act_order")), sym=bool(f.get("symmetric")), checkpoint_format="gptq_v2" if f.get("v2") else "gptq", lm_head=bool(f.get("head")), pack_dtype="int32", damp_percent=0.01)
    if f["method"] == "awq": return dict(quant_method="awq", bits=4, group_size=f["group"], zero_point=True, version="gemm", modules_to_not_convert=list(f["skip"]))
    if f["method"] == "int8": return dict(quant_method="bitsandbytes", load_in_8bit=True, load_in_4bit=False, llm_int8_threshold=6.0, llm_int8_skip_modules=None, llm_int8_has_fp16_weight=False)
    return dict(quant_method="bitsandbytes", load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type=f["kind"], bnb_4bit_use_double_quant=bool(f.get("double")), bnb_4bit_compute_dtype="float32", bnb_4bit_quant_storage="uint8")

def attempt(name, root, seed):
    kind, arguments, f, about = FIXTURES[name]; config = kind(**arguments); config.name = name
    model = mf.fill(mf.model_of(config), seed); rng = np.random.default_rng(seed); conv = kind is t.GPT2Config
    def is_wanted(key):
        module = key.removesuffix(".weight"); parts = module.split(".")
        return key.endswith(".weight") and model.get_parameter(key).dim() == 2 and (".layers." in key or ".h." in key or f.get("head") and module == "lm_head") and parts[-1] not in f.get("skip", ())
    tensors, wanted = {}, []
    for key, w in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings: continue
        if not is_wanted(key): tensors[key] = w.numpy().astype(np.float16); w.copy_(w.half().float()); continue
        w = w.numpy().T if conv else w.numpy(); wanted.append(key)
        tensors |= {f"{key.removesuffix('weight')}{part}": np.ascontiguousarray(v) for part, v in PACK[f["method"]](w, f, rng).items()}
    folder = os.path.join(root, name); shutil.rmtree(folder, ignore_errors=True); os.makedirs(folder)
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with safe_open(f"{folder}/model.safetensors", "np") as file:
        for key in wanted:
            value = READ[f["method"]](lambda part: file.get_tensor(key.removesuffix("weight") + part), f)
            model.get_parameter(key).copy_(torch.from_numpy(np.ascontiguousarray(value.T if conv else value)))
    g = torch.Generator().manual_seed(seed + 1); prompts = [torch.randint(3, config.vocab_size, (n,), generator=g).tolist() for n in (1, 7, 33)]
    rows, saved = [], {}
    for i, ids in enumerate(prompts):
        out, gap = mf.greedy(model, ids)
        if gap < 0.005 or len(set(out)) < 4: return f"greedy gap {gap:.4f}, {len(set(out))} tokens"
        z = mf.logits(model, ids); saved[f"p{i}.logits"] = z.contiguous().numpy()
        rows.append(dict(id=f"p{i}", length=len(ids), input_ids=ids, logits=f"p{i}.logits", greedy_ids=out, greedy_min_top1_top2_gap=round(gap, 6)))
    last = prompts[-1]; apart = lambda other: float((other.float() - z).abs().max())
    noise = dict(float32_vs_float64=apart(mf.logits(copy.deepcopy(model).double(), last)), prefill_vs_token_by_token=apart(mf.cached(model, last)))
    atol = max(1e-4, round(10 * max(noise.values()), 4))
    if atol > 2e-3: return f"noise {noise}"
    nll = torch.nn.functional.cross_entropy(z[:-1].double(), torch.tensor(last[1:]), reduction="sum").item()
    expected = dict(format="hf-fixture-1", name=name, about=about, kind="decoder-only", seed=seed, versions=dict(transformers=t.__version__, torch=torch.__version__, numpy=np.__version__),
        reference=dict(weights="read back from the file, bit by bit, as float32", compute_dtype="float32", attn_implementation="eager"), prompts=rows, nll=dict(prompt=rows[-1]["id"], sum=nll, tokens=len(last) - 1),
        noise_observed_max_abs=noise, tolerance=dict(logits_atol=atol, logits_rtol=1e-4, nll_sum_atol=0.005))
    written = json.loads(model.config.to_json_string(use_diff=False)); written = {k: v for k, v in written.items() if v is not None and k not in ("name", "_name_or_path", "name_or_path", "id2label", "label2id")}
    written |= dict(dtype="float16", architectures=[type(model).__name__], quantization_config=quantization_config(f))
    json.dump(written, open(f"{folder}/config.json", "w"), indent=1); json.dump(expected, open(f"{folder}/expected.json", "w"), indent=1)
    save_file(saved, f"{folder}/expected.safetensors")

if __name__ == "__main__":
    for name in sys.argv[2:] or FIXTURES:
        for seed in range(5000 + 100 * list(FIXTURES).index(name), 6000 + 100 * len(FIXTURES)):
            problem = attempt(name, sys.argv[1], seed)
            if not problem: print(name, seed); break
            print(name, seed, problem)
