"""Trains a small Llama-architecture causal language model on plain-text books and writes a Hugging Face folder.

What    One recipe for every embedded checkpoint: the base model and its draft differ only in the arguments below.
Data    A folder with train-*.txt.xz, valid.txt.xz and test.txt.xz (public-domain books). Its sha256 goes into training.json.
Method  1. byte-level BPE ids, cached;  2. pre-norm decoder (RMSNorm, RoPE, GQA, SwiGLU, tied head);
        3. Muon on the hidden matrices (Jordan et al. 2024), AdamW on embeddings and gains;
        4. learning rate: warm-up, constant, linear decay to zero, as a function of wall-clock time;
        5. held-out perplexity beside a unigram and an interpolated bigram model counted on the same training ids.
Output  config.json, model.safetensors (16 bit, Hugging Face names), tokenizer.json, training.json (arguments, hashes, loss curve).
Seeded, but the step count follows the clock: a slower machine makes a different checkpoint.

  python books.py OUT --data DIR --tokenizer tokenizer.json --minutes 90
  python books.py OUT --data DIR --tokenizer tokenizer.json --minutes 10 --hidden 128 --layers 2 --heads 2 --kv-heads 1 --ffn 384
"""
import argparse, glob, hashlib, json, lzma, math, os, time
import numpy as np, torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

p = argparse.ArgumentParser()
p.add_argument("out"); p.add_argument("--data", required=True); p.add_argument("--tokenizer", required=True)
p.add_argument("--ids", default=None, help="cache of the training ids (.npy)")
p.add_argument("--minutes", type=float, default=90); p.add_argument("--seed", type=int, default=1)
p.add_argument("--hidden", type=int, default=256); p.add_argument("--layers", type=int, default=4)
p.add_argument("--heads", type=int, default=4); p.add_argument("--kv-heads", type=int, default=2)
p.add_argument("--ffn", type=int, default=768); p.add_argument("--seq", type=int, default=512)
p.add_argument("--batch", type=int, default=16); p.add_argument("--muon-lr", type=float, default=0.02)
p.add_argument("--adam-lr", type=float, default=4e-3); p.add_argument("--threads", type=int, default=2)
p.add_argument("--bench", action="store_true")
a = p.parse_args()
torch.manual_seed(a.seed); torch.set_num_threads(a.threads); os.makedirs(a.out, exist_ok=True)
tok = Tokenizer.from_file(a.tokenizer); V = tok.get_vocab_size(); D = a.hidden // a.heads

# ---- data -------------------------------------------------------------------------------------------------------
def read(name): return lzma.open(os.path.join(a.data, name), "rt", encoding="utf-8").read()
def encode(text):
    parts = [text[i:i + 200_000] for i in range(0, len(text), 200_000)]
    return np.concatenate([np.array(e.ids, dtype=np.uint16) for e in tok.encode_batch(parts)])
shards = sorted(os.path.basename(f) for f in glob.glob(f"{a.data}/train-*.txt.xz"))
if a.ids and os.path.exists(a.ids): ids = np.load(a.ids)
else:
    ids = np.concatenate([encode(read(s)) for s in shards])
    if a.ids: np.save(a.ids, ids)
valid, test_text = encode(read("valid.txt.xz"))[:120_000], read("test.txt.xz")
test = encode(test_text)
print(f"{len(ids):,} train ids", flush=True)

# ---- model ------------------------------------------------------------------------------------------------------
def rms(x, g): return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * g
freq = 1.0 / 10000 ** (torch.arange(0, D, 2).float() / D)
angle = torch.outer(torch.arange(2048).float(), freq); COS, SIN = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
def rope(x):  # [batch, heads, time, D], half-split pairs as Hugging Face stores them
    t = x.shape[2]; h = D // 2
    return x * COS[:t].to(x.dtype) + torch.cat((-x[..., h:], x[..., :h]), -1) * SIN[:t].to(x.dtype)

W = {}
def matrix(name, rows, cols, std): W[name] = torch.nn.Parameter(torch.randn(rows, cols) * std)
matrix("model.embed_tokens.weight", V, a.hidden, 0.02)
for i in range(a.layers):
    n = f"model.layers.{i}."; s = a.hidden ** -0.5
    for k, (r, c) in {"self_attn.q_proj": (a.heads * D, a.hidden), "self_attn.k_proj": (a.kv_heads * D, a.hidden), "self_attn.v_proj": (a.kv_heads * D, a.hidden),
                      "self_attn.o_proj": (a.hidden, a.heads * D), "mlp.gate_proj": (a.ffn, a.hidden), "mlp.up_proj": (a.ffn, a.hidden), "mlp.down_proj": (a.hidden, a.ffn)}.items():
        matrix(f"{n}{k}.weight", r, c, 0.5 * s / (2 * a.layers) ** 0.5 if k in ("self_attn.o_proj", "mlp.down_proj") else 0.7 * c ** -0.5)
    W[n + "input_layernorm.weight"] = torch.nn.Parameter(torch.ones(a.hidden)); W[n + "post_attention_layernorm.weight"] = torch.nn.Parameter(torch.ones(a.hidden))
W["model.norm.weight"] = torch.nn.Parameter(torch.ones(a.hidden))
count = sum(w.numel() for w in W.values()); print(f"{count:,} parameters", flush=True)

def forward(x):
    h = W["model.embed_tokens.weight"][x]; b, t, _ = h.shape
    for i in range(a.layers):
        w = lambda k: W[f"model.layers.{i}.{k}.weight"]
        y = rms(h, w("input_layernorm"))
        split = lambda z, n: z.view(b, t, n, D).transpose(1, 2)
        q, k, v = (split(F.linear(y, w(f"self_attn.{c}_proj")), n) for c, n in (("q", a.heads), ("k", a.kv_heads), ("v", a.kv_heads)))
        k, g = rope(k), a.heads // a.kv_heads
        o = F.scaled_dot_product_attention(rope(q), k.repeat_interleave(g, 1), v.repeat_interleave(g, 1), is_causal=True)
        h = h + F.linear(o.transpose(1, 2).reshape(b, t, -1), w("self_attn.o_proj"))
        y = rms(h, w("post_attention_layernorm"))
        h = h + F.linear(F.silu(F.linear(y, w("mlp.gate_proj"))) * F.linear(y, w("mlp.up_proj")), w("mlp.down_proj"))
    return F.linear(rms(h, W["model.norm.weight"]), W["model.embed_tokens.weight"])

def loss_of(window):
    with torch.autocast("cpu", dtype=torch.bfloat16): logits = forward(window[:, :-1])
    return F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())

@torch.no_grad()
def nll(x, stride, span=None):
    span = span or a.seq; total = n = 0
    for i in range(0, len(x) - span - 1, stride):
        w = torch.from_numpy(x[i:i + span + 1].astype(np.int64))[None]
        total += F.cross_entropy(forward(w[:, :-1])[0].float(), w[0, 1:]).item(); n += 1
    return total / n

# ---- optimiser --------------------------------------------------------------------------------------------------
def orthogonal(g):  # Newton-Schulz quintic, five steps
    x = g.bfloat16(); flip = x.shape[0] > x.shape[1]; x = x.T if flip else x; x = x / (x.norm() + 1e-7)
    for _ in range(5):
        m = x @ x.T; x = 3.4445 * x + (-4.7750 * m + 2.0315 * m @ m) @ x
    return (x.T if flip else x).float()
hidden = [k for k, w in W.items() if w.dim() == 2 and "embed" not in k]; momentum = {k: torch.zeros_like(W[k]) for k in hidden}
adam = torch.optim.AdamW([{"params": [W["model.embed_tokens.weight"]], "weight_decay": 0.01}, {"params": [w for w in W.values() if w.dim() == 1], "weight_decay": 0.0}], lr=a.adam_lr, betas=(0.9, 0.95))

def save():
    tmp = f"{a.out}/model.safetensors.tmp"
    save_file({k: w.detach().to(torch.float16).contiguous() for k, w in W.items()}, tmp, metadata={"format": "pt"}); os.replace(tmp, f"{a.out}/model.safetensors")
json.dump(dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=V, hidden_size=a.hidden, intermediate_size=a.ffn, num_hidden_layers=a.layers, num_attention_heads=a.heads,
    num_key_value_heads=a.kv_heads, max_position_embeddings=2048, rope_theta=10000.0, rms_norm_eps=1e-5, hidden_act="silu", tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, torch_dtype="float16"), open(f"{a.out}/config.json", "w"), indent=1)
tok.save(f"{a.out}/tokenizer.json")

rng = np.random.default_rng(a.seed); start = time.time(); budget = a.minutes * 60; step = 0; log = []
while True:
    t = (time.time() - start) / budget
    if t >= 1: break
    k = min(1, (step + 1) / 100) * (1 if t < 0.45 else max(0.0, (1 - t) / 0.55))
    at = rng.integers(0, len(ids) - a.seq - 1, a.batch)
    loss = loss_of(torch.from_numpy(np.stack([ids[i:i + a.seq + 1] for i in at]).astype(np.int64)))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(W.values()), 1.0)
    with torch.no_grad():
        for name in hidden:
            w, m = W[name], momentum[name]; m.mul_(0.95).add_(w.grad)
            w.mul_(1 - a.muon_lr * k * 0.05).add_(orthogonal(w.grad + 0.95 * m), alpha=-a.muon_lr * k * max(1, w.shape[0] / w.shape[1]) ** 0.5)
    for g in adam.param_groups: g["lr"] = a.adam_lr * k
    adam.step()
    for w in W.values(): w.grad = None
    step += 1
    if a.bench and step == 12: print(f"{step * a.batch * a.seq / (time.time() - start):.0f} tokens/s", loss.item()); raise SystemExit
    if step % 50 == 0:
        r = dict(step=step, tokens=step * a.batch * a.seq, loss=round(loss.item(), 4), scale=round(k, 4), seconds=round(time.time() - start))
        if step % 200 == 0: r["valid_nll"] = round(nll(valid, a.seq * 4), 4); save()
        log.append(r); print(json.dumps(r), flush=True)
save()

# ---- held-out perplexity beside counted baselines ---------------------------------------------------------------------
def baselines(x):
    """NLL per token of add-one unigram and of bigram interpolated with it (Jelinek-Mercer weight c/(c+8) per context)."""
    uni = np.bincount(ids, minlength=V).astype(np.float64) + 1; uni /= uni.sum()
    pair = ids[:-1].astype(np.int64) * V + ids[1:]; keys, n = np.unique(pair, return_counts=True)
    context = np.bincount(ids[:-1], minlength=V).astype(np.float64)
    want = x[:-1].astype(np.int64) * V + x[1:]; at = np.minimum(np.searchsorted(keys, want), len(keys) - 1)
    seen = np.where(keys[at] == want, n[at], 0); c = context[x[:-1]]
    bi = (seen + 8 * uni[x[1:]]) / (c + 8)
    return -np.log(uni[x[1:]]).mean(), -np.log(bi).mean()
for name in W: W[name].data = W[name].data.half().float()   # what is shipped
sha = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
held = nll(test, a.seq); uni, bi = baselines(test)
json.dump(dict(parameters=count, steps=step, tokens=step * a.batch * a.seq, held_out=dict(text="books test split", window=a.seq, nll=held, ppl=math.exp(held), unigram_ppl=math.exp(uni), bigram_ppl=math.exp(bi)),
    arguments={k: v for k, v in vars(a).items() if k not in ("out", "data", "ids", "tokenizer", "bench")}, data_sha256={s: sha(f"{a.data}/{s}") for s in shards + ["valid.txt.xz", "test.txt.xz"]},
    weights_sha256=sha(f"{a.out}/model.safetensors"), torch=torch.__version__, curve=log), open(f"{a.out}/training.json", "w"), indent=1)
print(f"held-out ppl {math.exp(held):.2f}, bigram {math.exp(bi):.1f}, unigram {math.exp(uni):.1f}")
