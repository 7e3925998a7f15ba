"""Trains the small comparison checkpoints: one budget, one data order, one table of shapes.

What    Language models of about one million parameters that differ in one thing each: the sharing of key/value heads, the
        cache (multi-head latent attention), learned positions, or routed experts. The feed-forward width makes up for
        parameters that attention saves, as Shazeer (2019) does for multi-query attention.
Data    The books and tokenizer of books.py. The windows are drawn from a seeded generator, so every model sees the same
        tokens in the same order.
Method  The classes of Hugging Face transformers; bfloat16 autocast; Muon on hidden matrices, AdamW on the rest; learning
        rate as a function of the STEP: warm-up, constant, linear decay to zero. The step count is fixed.
        Uptrained ones (Ainslie et al. 2023): key and value heads of `mha` mean-pooled per group, then 5 % of the steps with
        the same schedule, shortened.
Check   The saved folder is loaded again and its logits compared with the model that was measured.
Output  config.json, model.safetensors (float16), training.json (arguments, hashes, curve, held-out perplexity beside counted
        unigram and bigram models; for converted models also the loss before uptraining for three ways of converting).

  python small.py OUT_ROOT --data DIR --tokenizer tokenizer.json --ids ids.npy [NAME ...]
"""
import argparse, copy, glob, hashlib, json, lzma, math, os, time
import numpy as np, torch, transformers
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, DeepseekV2Config, GPT2Config, LlamaConfig, MixtralConfig
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

LAYERS, HIDDEN, HEADS, CONTEXT = 3, 128, 4, 512
COMMON = dict(num_hidden_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=HEADS, max_position_embeddings=CONTEXT,
              rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=None)
def llama(kv_heads, ffn): return lambda v: LlamaConfig(vocab_size=v, num_key_value_heads=kv_heads, intermediate_size=ffn, **COMMON)
def moe(v): return MixtralConfig(vocab_size=v, num_key_value_heads=4, intermediate_size=128, num_local_experts=4, num_experts_per_tok=2,
                                 sliding_window=None, rope_theta=10000.0, **COMMON)
def mla(v): return DeepseekV2Config(vocab_size=v, num_key_value_heads=4, intermediate_size=192, q_lora_rank=None, kv_lora_rank=96, qk_rope_head_dim=32,
                                    qk_nope_head_dim=32, v_head_dim=32, first_k_dense_replace=LAYERS, n_routed_experts=2, num_experts_per_tok=1,
                                    n_shared_experts=1, moe_intermediate_size=32, topk_group=1, n_group=1, **COMMON)
def gpt2(v): return GPT2Config(vocab_size=v, n_positions=CONTEXT, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_inner=384, resid_pdrop=0, embd_pdrop=0,
                               attn_pdrop=0, bos_token_id=0, eos_token_id=0)
MODELS = {  # name: (configuration, name of the model it is converted from)
    "mha": (llama(4, 256), None), "gqa2": (llama(2, 296), None), "mqa": (llama(1, 320), None),
    "gqa2-uptrained": (llama(2, 256), "mha"), "mqa-uptrained": (llama(1, 256), "mha"),
    "mla": (mla, None), "moe": (moe, None), "learned-positions": (gpt2, None),
}

p = argparse.ArgumentParser()
p.add_argument("out"); p.add_argument("names", nargs="*", default=list(MODELS)); p.add_argument("--data", required=True)
p.add_argument("--tokenizer", required=True); p.add_argument("--ids", required=True, help="cache of the training ids (.npy), made by books.py")
p.add_argument("--seed", type=int, default=1); p.add_argument("--steps", type=int, default=900); p.add_argument("--uptrain", type=float, default=0.05)
p.add_argument("--seq", type=int, default=256); p.add_argument("--batch", type=int, default=16)
p.add_argument("--muon-lr", type=float, default=0.02); p.add_argument("--adam-lr", type=float, default=4e-3); p.add_argument("--threads", type=int, default=1)
a = p.parse_args(); torch.set_num_threads(a.threads)

# ---- data -------------------------------------------------------------------------------------------------------
tok = Tokenizer.from_file(a.tokenizer); V = tok.get_vocab_size(); ids = np.load(a.ids, mmap_mode="r"); HELD = 400 * a.seq + 1
def encode(name):
    text = lzma.open(os.path.join(a.data, name), "rt", encoding="utf-8").read()
    return np.array(tok.encode(text[:600_000]).ids, dtype=np.int64)[:HELD]
valid, test = encode("valid.txt.xz")[: 40 * a.seq + 1], encode("test.txt.xz")
sha = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
def cached_baselines(cache={}):
    """NLL per token of add-one unigram and of bigram interpolated with it (Jelinek-Mercer weight c/(c+8) per context)."""
    if cache: return cache["nll"]
    all_ids = np.array(ids); uni = np.bincount(all_ids, minlength=V).astype(np.float64) + 1; uni /= uni.sum()
    keys, n = np.unique(all_ids[:-1].astype(np.int64) * V + all_ids[1:], return_counts=True)
    context = np.bincount(all_ids[:-1], minlength=V).astype(np.float64)
    want = test[:-1] * V + test[1:]; at = np.minimum(np.searchsorted(keys, want), len(keys) - 1)
    seen = np.where(keys[at] == want, n[at], 0); c = context[test[:-1]]
    cache["nll"] = -np.log(uni[test[1:]]).mean(), -np.log((seen + 8 * uni[test[1:]]) / (c + 8)).mean()
    return cache["nll"]

# ---- loss: the head in pieces, so that no [tokens, vocabulary] matrix leaves the cache --------------------------------
class HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, w, y):
        gh, gw, n, total, wb, hb = torch.empty_like(h), torch.zeros_like(w), len(y), 0.0, w.bfloat16(), h.bfloat16()
        for i in range(0, n, 512):
            z, t = (hb[i:i + 512] @ wb.T).float(), y[i:i + 512, None]; lse = z.logsumexp(-1, keepdim=True)
            total += (lse - z.gather(1, t)).sum().item()
            z = z.sub_(lse).exp_().scatter_add_(1, t, torch.full(t.shape, -1.0)).mul_(1 / n).bfloat16()
            gh[i:i + 512] = z @ wb; gw += z.T @ hb[i:i + 512]
        ctx.save_for_backward(gh, gw); return torch.tensor(total / n)
    @staticmethod
    def backward(ctx, g): gh, gw = ctx.saved_tensors; return gh * g, gw * g, None

def loss_of(model, window):
    routed = model.config.model_type == "mixtral"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.base_model(window[:, :-1], use_cache=False, **(dict(output_router_logits=True) if routed else {}))
    loss = HeadLoss.apply(out.last_hidden_state.float().flatten(0, 1), model.lm_head.weight, window[:, 1:].flatten())
    if routed: loss = loss + 0.02 * load_balancing_loss_func(tuple(r.float() for r in out.router_logits), 4, 2)
    return loss

@torch.no_grad()
def nll(model, x):
    """Mean over non-overlapping windows of `seq` tokens, float32, no context across windows."""
    w = torch.from_numpy(np.stack([x[i:i + a.seq + 1] for i in range(0, len(x) - a.seq, a.seq)])); total = 0.0
    for part in w.split(8):
        h = model.base_model(part[:, :-1], use_cache=False).last_hidden_state
        total += F.cross_entropy(model.lm_head(h).flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / w[:, 1:].numel()

# ---- model and optimiser --------------------------------------------------------------------------------------------
def hidden(name, w): return w.dim() >= 2 and not any(s in name for s in ("embed", "wte", "wpe", "lm_head", "mlp.gate.weight"))
def stored_in_out(name): return ".c_" in name    # GPT-2 keeps [in, out]
def parts(name, w):  # fused matrices are orthogonalised one by one
    return w.chunk(3, -1) if "c_attn" in name else w.chunk(2, -2) if "gate_up_proj" in name else (w,)
def initialise(model):
    for name, w in model.named_parameters():
        if not hidden(name, w): continue
        fan_in = w.shape[0] if stored_in_out(name) else w.shape[-1]
        last = any(s in name for s in ("o_proj", "down_proj", "c_proj"))
        torch.nn.init.normal_(w, std=(0.5 / (2 * LAYERS) ** 0.5 if last else 0.7) * fan_in ** -0.5)
def orthogonal(g):  # Newton-Schulz quintic, five steps, batched over leading dimensions
    x = g.bfloat16(); flip = x.shape[-2] > x.shape[-1]; x = x.mT if flip else x; x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5): m = x @ x.mT; x = 3.4445 * x + (-4.7750 * m + 2.0315 * m @ m) @ x
    return (x.mT if flip else x).float()

def train(model, steps, warmup, log):
    rng, start = np.random.default_rng(a.seed), time.time(); named = dict(model.named_parameters())
    matrices = {k: w for k, w in named.items() if hidden(k, w)}; momentum = {k: torch.zeros_like(w) for k, w in matrices.items()}
    rest = [w for k, w in named.items() if k not in matrices]
    adam = torch.optim.AdamW([dict(params=[w for w in rest if w.dim() == 2], weight_decay=0.01), dict(params=[w for w in rest if w.dim() < 2], weight_decay=0.0)], lr=a.adam_lr, betas=(0.9, 0.95))
    for step in range(1, steps + 1):
        t = (step - 1) / steps; k = min(1, step / warmup) * (1 if t < 0.45 else (1 - t) / 0.55)
        at = rng.integers(0, len(ids) - a.seq - 1, a.batch)
        loss = loss_of(model, torch.from_numpy(np.stack([ids[i:i + a.seq + 1] for i in at]).astype(np.int64))); loss.backward()
        torch.nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        with torch.no_grad():
            for name, w in matrices.items():
                m = momentum[name].mul_(0.95).add_(w.grad); w.mul_(1 - a.muon_lr * k * 0.05)
                for target, g in zip(parts(name, w), parts(name, w.grad + 0.95 * m)):
                    rows, cols = (g.shape[1], g.shape[0]) if stored_in_out(name) else g.shape[-2:]
                    target.add_(orthogonal(g), alpha=-a.muon_lr * k * max(1, rows / cols) ** 0.5)
        for g in adam.param_groups: g["lr"] = a.adam_lr * k
        adam.step(); model.zero_grad(set_to_none=True)
        if step % 50 == 0 or step == steps:
            r = dict(step=step, tokens=step * a.batch * a.seq, loss=round(loss.item(), 4), scale=round(k, 4))
            if step % 300 == 0 or step == steps: r["valid_nll"] = round(nll(model, valid), 4)
            log.append(r); print(json.dumps(r), round(time.time() - start), "s", flush=True)

# ---- conversion of heads -----------------------------------------------------------------------------------------
def converted(source, config, how):
    """`source` with its key and value heads reduced to those of `config`: the mean or first of each group, or random ones."""
    torch.manual_seed(a.seed); target = AutoModelForCausalLM.from_config(config, dtype=torch.float32); initialise(target); state = source.state_dict()
    for name, w in target.state_dict().items():
        old = state[name]
        if old.shape == w.shape: w.copy_(old); continue
        groups = old.view(config.num_key_value_heads, -1, HIDDEN // HEADS, HIDDEN)   # [kv heads, heads per group, head, in]
        if how != "random": w.copy_((groups.mean(1) if how == "mean" else groups[:, 0]).reshape(w.shape))
    return target
def half(model):  # what is shipped
    for w in model.parameters(): w.data = w.data.half().float()
    return model

for name in a.names:
    configuration, source = MODELS[name]; folder = os.path.join(a.out, name); config = configuration(V); log, facts = [], {}
    if os.path.exists(f"{folder}/training.json"): continue
    print(name, flush=True); os.makedirs(folder, exist_ok=True); torch.manual_seed(a.seed); steps = a.steps
    if source:
        old = AutoModelForCausalLM.from_pretrained(os.path.join(a.out, source), dtype=torch.float32); steps = round(a.steps * a.uptrain)
        with torch.no_grad(): before = {how: converted(old, config, how) for how in ("mean", "first", "random")}
        facts = dict(converted_from=dict(name=source, weights_sha256=sha(f"{a.out}/{source}/model.safetensors"), how="mean of the heads of each group", nll=nll(old, test),
                                         nll_before_uptraining={how: nll(m, test) for how, m in before.items()}))
        model = before["mean"]; print(json.dumps(facts), flush=True)
    else: model = AutoModelForCausalLM.from_config(config, dtype=torch.float32); initialise(model)
    count = sum(w.numel() for w in model.parameters()); print(f"{count:,} parameters", flush=True)
    train(model, steps, warmup=max(2, steps // 15), log=log)
    copy.deepcopy(half(model)).to(torch.float16).save_pretrained(folder)
    if os.path.exists(f"{folder}/generation_config.json"): os.remove(f"{folder}/generation_config.json")
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32); x = torch.from_numpy(test[None, :200])
    with torch.no_grad(): difference = (again(x).logits - model(x).logits).abs().max().item()
    assert difference == 0, f"{name}: the loaded folder differs by {difference}"
    held = nll(model, test); uni, bi = cached_baselines()
    json.dump(dict(parameters=count, steps=steps, tokens=steps * a.batch * a.seq,
        held_out=dict(text=f"first {len(test) - 1} tokens of the books test split", window=a.seq, nll=held, ppl=math.exp(held), unigram_ppl=math.exp(uni), bigram_ppl=math.exp(bi)), **facts,
        arguments={k: v for k, v in vars(a).items() if k not in ("out", "data", "ids", "tokenizer", "names")},
        data_sha256={os.path.basename(s): sha(s) for s in sorted(glob.glob(f"{a.data}/*.txt.xz"))}, tokenizer_sha256=sha(a.tokenizer), weights_sha256=sha(f"{folder}/model.safetensors"),
        torch=torch.__version__, transformers=transformers.__version__, curve=log), open(f"{folder}/training.json", "w"), indent=1)
    print(f"{name}: held-out ppl {math.exp(held):.2f}, bigram {math.exp(bi):.1f}, unigram {math.exp(uni):.1f}", flush=True)
