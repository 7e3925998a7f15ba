"""Fine-tunes an embedded checkpoint the way of QLoRA: 4-bit NF4 weights, frozen, and a low-rank adapter in 16 bits that learns.

What    A LoRA adapter for Llama-shaped checkpoints, in the layout of PEFT, for a task the checkpoint is bad at: text in capitals.
Source  Dettmers et al. 2023, arXiv 2305.14314, section 3; Hu et al. 2021, arXiv 2106.09685.
Data    The books of books.py, upper-cased; the held-out figures are of the first tokens of the upper-cased test split.
Method  1. every matrix of the layers becomes its NF4 value: per row and 64 columns, absmax times the nearest of 16 levels (as bitsandbytes);
        embedding and head stay. 2. adapters of rank r on the named projections, B = 0. 3. AdamW, warm-up and cosine decay over a fixed number of
        steps, on windows drawn from a seeded generator; only A and B get gradients. 4. A and B are rounded to float16 and measured so.
Output  adapter_config.json and adapter_model.safetensors (PEFT), training.json (arguments, hashes, loss curve, held-out perplexity before and after).

  python qlora.py OUT --model scenarios/models/base --data DIR --tokenizer scenarios/models/tokenizer.json
"""
import argparse, glob, hashlib, json, lzma, math, os, time
import numpy as np, torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

p = argparse.ArgumentParser()
p.add_argument("out"); p.add_argument("--model", required=True); p.add_argument("--data", required=True); p.add_argument("--tokenizer", required=True)
p.add_argument("--rank", type=int, default=8); p.add_argument("--alpha", type=int, default=16); p.add_argument("--steps", type=int, default=160)
p.add_argument("--targets", default="q_proj,v_proj,gate_proj,up_proj,down_proj"); p.add_argument("--lr", type=float, default=4e-3)
p.add_argument("--seq", type=int, default=256); p.add_argument("--batch", type=int, default=4); p.add_argument("--seed", type=int, default=1)
p.add_argument("--threads", type=int, default=1); p.add_argument("--held-out-windows", type=int, default=40)
a = p.parse_args(); torch.manual_seed(a.seed); torch.set_num_threads(a.threads); os.makedirs(a.out, exist_ok=True)

# ---- data -------------------------------------------------------------------------------------------------------
tok = Tokenizer.from_file(a.tokenizer)
def capitals(name, characters):
    text = lzma.open(os.path.join(a.data, name), "rt", encoding="utf-8").read()[:characters].upper()
    return np.concatenate([np.array(e.ids, dtype=np.int64) for e in tok.encode_batch([text[i:i + 100_000] for i in range(0, len(text), 100_000)])])
shards = sorted(os.path.basename(f) for f in glob.glob(f"{a.data}/train-*.txt.xz"))
ids = np.concatenate([capitals(s, 600_000) for s in shards]); test = capitals("test.txt.xz", 300_000)
sha = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()

# ---- NF4 -----------------------------------------------------------------------------------------------------------
NF4 = torch.tensor([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0])
MIDPOINTS = (NF4[1:] + NF4[:-1]) / 2
def nf4(w):  # every width here is a multiple of 64
    blocks = w.reshape(-1, 64); scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-30)
    return (NF4[torch.bucketize(blocks / scale, MIDPOINTS)] * scale).view_as(w)

base = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
with torch.no_grad():
    for name, w in base.named_parameters():
        if w.dim() == 2 and ".layers." in name: w.copy_(nf4(w))
model = get_peft_model(base, LoraConfig(r=a.rank, lora_alpha=a.alpha, target_modules=a.targets.split(","), lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"))
adapter = [w for w in model.parameters() if w.requires_grad]

@torch.no_grad()
def nll():
    w = torch.from_numpy(np.stack([test[i * a.seq:(i + 1) * a.seq] for i in range(a.held_out_windows)])); total = 0.0
    for part in w.split(8): total += model(part, labels=part).loss.item() * len(part)
    return total / len(w)

# ---- training -----------------------------------------------------------------------------------------------------
before, start, curve, rng = nll(), time.time(), [], np.random.default_rng(a.seed)
print(f"{sum(w.numel() for w in adapter):,} parameters, held-out perplexity before {math.exp(before):.1f}", flush=True)
adam = torch.optim.AdamW(adapter, lr=a.lr, betas=(0.9, 0.99), weight_decay=0.0)
for step in range(1, a.steps + 1):
    k = min(1.0, step / 10) * 0.5 * (1 + math.cos(math.pi * (step - 1) / a.steps))
    for g in adam.param_groups: g["lr"] = a.lr * k
    at = rng.integers(0, len(ids) - a.seq, a.batch)
    x = torch.from_numpy(np.stack([ids[i:i + a.seq] for i in at]))
    loss = model(x, labels=x).loss; loss.backward()
    torch.nn.utils.clip_grad_norm_(adapter, 1.0); adam.step(); adam.zero_grad(set_to_none=True)
    if step % 10 == 0 or step == a.steps:
        curve.append(dict(step=step, loss=round(loss.item(), 4))); print(json.dumps(curve[-1]), round(time.time() - start), "s", flush=True)
with torch.no_grad():
    for w in adapter: w.copy_(w.half().float())
after = nll()

# ---- the folder -----------------------------------------------------------------------------------------------------
model.save_pretrained(a.out); weights = os.path.join(a.out, "adapter_model.safetensors")
save_file({name: w.half().contiguous() for name, w in load_file(weights).items()}, weights, metadata={"format": "pt"})
config_file = os.path.join(a.out, "adapter_config.json"); config = json.load(open(config_file))
config["base_model_name_or_path"] = None; json.dump(config, open(config_file, "w"), indent=1)
for extra in ("README.md",):
    if os.path.exists(os.path.join(a.out, extra)): os.remove(os.path.join(a.out, extra))
held = dict(text="books test split, upper case", window=a.seq, windows=a.held_out_windows, ppl_before=math.exp(before), ppl=math.exp(after))
json.dump(dict(parameters=sum(w.numel() for w in adapter), steps=a.steps, tokens=a.steps * a.batch * a.seq, held_out=held,
    arguments={k: v for k, v in vars(a).items() if k not in ("out", "model", "data", "tokenizer", "threads")}, model_sha256=sha(os.path.join(a.model, "model.safetensors")),
    data_sha256={s: sha(os.path.join(a.data, s)) for s in shards + ["test.txt.xz"]}, loss=curve), open(os.path.join(a.out, "training.json"), "w"), indent=1)
print(f"held-out perplexity {math.exp(before):.1f} -> {math.exp(after):.1f}", flush=True)
