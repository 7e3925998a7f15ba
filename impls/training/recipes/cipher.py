"""Trains two tiny encoder-decoders that differ only in where the norms stand: after each residual sum or before each sublayer.

What    Vaswani et al. (2017) in miniature: sinusoidal positions, ReLU, embeddings shared by source, target and head and
        multiplied by sqrt(d_model). `cipher-post-norm` is the paper's form (Hugging Face Marian); `cipher-pre-norm` has the
        norms before the sublayers and one more after each stack (`normalize_before`, `add_final_layer_norm`).
Task    A sentence of 3 to 14 random symbols; its translation is the sentence in reverse order under a fixed substitution.
        Sentences are drawn from a seeded generator, the held-out ones from another; a sentence of the held-out set is
        never trained on.
Method  AdamW with warm-up and linear decay to zero, a fixed number of steps; both forms see the same sentences in the same order.
Check   Logits of the saved folder against MarianMTModel, or for the pre-norm form against M2M100 with Marian's position table.
Output  config.json, model.safetensors (float16), held-out.json (token ids of sources and their translations), training.json.

  python cipher.py OUT_ROOT [NAME ...]
"""
import argparse, hashlib, json, math, os, time
import numpy as np, torch, transformers
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

END, PAD, FIRST, SYMBOLS, SHORT, LONG = 0, 2, 4, 40, 3, 14
p = argparse.ArgumentParser()
p.add_argument("out"); p.add_argument("names", nargs="*", default=["cipher-post-norm", "cipher-pre-norm"])
p.add_argument("--seed", type=int, default=1); p.add_argument("--steps", type=int, default=2500); p.add_argument("--batch", type=int, default=96)
p.add_argument("--lr", type=float, default=2e-3); p.add_argument("--warmup", type=int, default=250); p.add_argument("--threads", type=int, default=1)
p.add_argument("--hidden", type=int, default=64); p.add_argument("--heads", type=int, default=4); p.add_argument("--ffn", type=int, default=128); p.add_argument("--layers", type=int, default=2)
a = p.parse_args(); torch.set_num_threads(a.threads); V = FIRST + SYMBOLS

# ---- task -------------------------------------------------------------------------------------------------------
CIPHER = np.random.default_rng(7).permutation(SYMBOLS)
def sentence(rng): return rng.integers(0, SYMBOLS, rng.integers(SHORT, LONG + 1))
def pair(s): return (s + FIRST).tolist() + [END], (CIPHER[s[::-1]] + FIRST).tolist() + [END]
held_rng = np.random.default_rng(99); held = [sentence(held_rng) for _ in range(500)]; held_set = {tuple(s) for s in held}
def batch(rng):
    pairs = []
    while len(pairs) < a.batch:
        s = sentence(rng)
        if tuple(s) not in held_set: pairs.append(pair(s))
    padded = lambda rows: torch.tensor([r + [PAD] * (LONG + 1 - len(r)) for r in rows])
    return padded([x for x, _ in pairs]), padded([y for _, y in pairs])

# ---- model: functions over tensors with Hugging Face's Marian names ----------------------------------------------------
def make_weights():
    w, h = {"model.shared.weight": torch.randn(V, a.hidden) * a.hidden ** -0.5}, a.hidden
    def linear(name, rows, cols): w[name + ".weight"] = torch.nn.init.xavier_uniform_(torch.empty(rows, cols)); w[name + ".bias"] = torch.zeros(rows)
    def norm(name): w[name + ".weight"] = torch.ones(h); w[name + ".bias"] = torch.zeros(h)
    for stack in ("encoder", "decoder"):
        for i in range(a.layers):
            n = f"model.{stack}.layers.{i}."
            for block in ("self_attn", "encoder_attn")[:1 if stack == "encoder" else 2]:
                for x in "qkv": linear(f"{n}{block}.{x}_proj", h, h)
                linear(f"{n}{block}.out_proj", h, h); norm(f"{n}{block}_layer_norm")
            linear(n + "fc1", a.ffn, h); linear(n + "fc2", h, a.ffn); norm(n + "final_layer_norm")
    return w
def sinusoid(length, width):
    angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.cat((angle.sin(), angle.cos()), 1)   # sines, then cosines
TABLE = sinusoid(64, a.hidden)

def forward(w, source, target, pre):
    lin = lambda x, n: F.linear(x, w[n + ".weight"], w[n + ".bias"])
    norm = lambda x, n: F.layer_norm(x, (a.hidden,), w[n + ".weight"], w[n + ".bias"])
    embed = lambda ids: w["model.shared.weight"][ids] * a.hidden ** 0.5 + TABLE[: ids.shape[1]]
    def attend(x, memory, n, mask, causal):
        split = lambda z: z.unflatten(-1, (a.heads, -1)).transpose(1, 2)
        o = F.scaled_dot_product_attention(split(lin(x, n + ".q_proj")), split(lin(memory, n + ".k_proj")), split(lin(memory, n + ".v_proj")), attn_mask=mask, is_causal=causal)
        return lin(o.transpose(1, 2).flatten(2), n + ".out_proj")
    def sub(x, n, f): return x + f(norm(x, n)) if pre else norm(x + f(x), n)
    seen = (source != PAD)[:, None, None, :]
    def stack(kind, x, memory=None):
        for i in range(a.layers):
            n = f"model.{kind}.layers.{i}."
            x = sub(x, n + "self_attn_layer_norm", lambda y: attend(y, y, n + "self_attn", None if memory is not None else seen, memory is not None))
            if memory is not None: x = sub(x, n + "encoder_attn_layer_norm", lambda y: attend(y, memory, n + "encoder_attn", seen, False))
            x = sub(x, n + "final_layer_norm", lambda y: lin(lin(y, n + "fc1").relu(), n + "fc2"))
        return norm(x, f"model.{kind}.layer_norm") if pre else x
    return F.linear(stack("decoder", embed(target), stack("encoder", embed(source))), w["model.shared.weight"])

@torch.no_grad()
def exact_match(w, pre):
    hits = 0
    for i in range(0, len(held), 100):
        pairs = [pair(s) for s in held[i:i + 100]]; out = torch.full((len(pairs), 1), PAD)
        source = torch.tensor([x + [PAD] * (LONG + 1 - len(x)) for x, _ in pairs])
        for _ in range(LONG + 1): out = torch.cat((out, forward(w, source, out, pre)[:, -1:].argmax(-1)), 1)
        hits += sum(o[1:1 + len(y)].tolist() == y for o, (_, y) in zip(out, pairs))
    return hits / len(held)

@torch.no_grad()
def check(folder, w, config, pre):
    """Largest difference of logits between this file's model and the one of transformers on the saved tensors."""
    state = {k: v.float() for k, v in load_file(f"{folder}/model.safetensors").items()}; arguments = {k: v for k, v in config.items() if k not in ("model_type", "architectures", "dtype")}
    x, y = pair(held[0]); source, target = torch.tensor([x]), torch.tensor([[PAD] + y[:-1]])
    if pre:
        arguments["pad_token_id"] = 1; model = transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**arguments)); state.pop("final_logits_bias")   # its positions start at pad + 1
        for kind in (model.model.encoder, model.model.decoder): kind.embed_positions.weights = torch.cat((torch.zeros(2, a.hidden), TABLE))
    else: model = transformers.MarianMTModel(transformers.MarianConfig(**arguments))
    left = model.load_state_dict(state, strict=False); assert not left.unexpected_keys, left
    assert all(any(s in k for s in ("embed_tokens", "embed_positions", "lm_head")) for k in left.missing_keys), left
    model.tie_weights(); theirs = model.eval()(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target).logits
    return (theirs - forward(w, source, target, pre)).abs().max().item()

for name in a.names:
    pre, folder, start = name == "cipher-pre-norm", os.path.join(a.out, name), time.time(); os.makedirs(folder, exist_ok=True); torch.manual_seed(a.seed)
    w = {k: torch.nn.Parameter(v) for k, v in make_weights().items()}
    if pre: w.update({f"model.{k}.layer_norm.{x}": torch.nn.Parameter(torch.ones(a.hidden) if x == "weight" else torch.zeros(a.hidden)) for k in ("encoder", "decoder") for x in ("weight", "bias")})
    count = sum(v.numel() for v in w.values()); print(name, f"{count:,} parameters", flush=True)
    adam, rng, log = torch.optim.AdamW(w.values(), lr=a.lr, betas=(0.9, 0.98), weight_decay=0.01), np.random.default_rng(a.seed), []
    for step in range(1, a.steps + 1):
        x, y = batch(rng); inputs = torch.cat((torch.full((a.batch, 1), PAD), y[:, :-1]), 1)
        loss = F.cross_entropy(forward(w, x, inputs, pre).flatten(0, 1), y.flatten(), ignore_index=PAD); adam.zero_grad(); loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 1.0); scale = min(step / a.warmup, (a.steps - step) / (a.steps - a.warmup))
        for g in adam.param_groups: g["lr"] = a.lr * scale
        adam.step()
        if step % 250 == 0:
            log.append(dict(step=step, loss=round(loss.item(), 4), held_out_exact_match=exact_match(w, pre))); print(json.dumps(log[-1]), round(time.time() - start), "s", flush=True)
    for v in w.values(): v.data = v.data.half().float()   # what is shipped
    save_file({k: v.detach().half().contiguous() for k, v in w.items()} | {"final_logits_bias": torch.zeros(1, V).half()}, f"{folder}/model.safetensors", metadata={"format": "pt"})
    config = dict(architectures=["MarianMTModel"], model_type="marian", is_encoder_decoder=True, vocab_size=V, decoder_vocab_size=V, d_model=a.hidden, encoder_layers=a.layers, decoder_layers=a.layers,
        encoder_attention_heads=a.heads, decoder_attention_heads=a.heads, encoder_ffn_dim=a.ffn, decoder_ffn_dim=a.ffn, activation_function="relu", scale_embedding=True, max_position_embeddings=64,
        share_encoder_decoder_embeddings=True, tie_word_embeddings=True, static_position_embeddings=True, pad_token_id=PAD, eos_token_id=END, decoder_start_token_id=PAD, forced_eos_token_id=None,
        dropout=0.0, dtype="float16", **(dict(normalize_before=True, add_final_layer_norm=True) if pre else {}))
    if pre: config["architectures"] = []
    json.dump(config, open(f"{folder}/config.json", "w"), indent=1)
    difference = check(folder, w, config, pre); assert difference < 1e-4, difference
    pairs = [pair(s) for s in held[:64]]; json.dump(dict(about="source ids and the ids of their translation, both ended by token 0; decoding starts from token 2", pairs=[dict(source=x, target=y) for x, y in pairs]), open(f"{folder}/held-out.json", "w"))
    sha = lambda f: hashlib.sha256(open(f, "rb").read()).hexdigest(); score = exact_match(w, pre)
    json.dump(dict(parameters=count, steps=a.steps, sentences=a.steps * a.batch, task=f"reverse a sentence of {SHORT} to {LONG} symbols out of {SYMBOLS} and substitute each by a fixed permutation",
        held_out_translation=dict(sentences=len(held), exact_match=score), largest_logit_difference_to_transformers=difference, arguments={k: v for k, v in vars(a).items() if k not in ("out", "names")},
        weights_sha256=sha(f"{folder}/model.safetensors"), torch=torch.__version__, transformers=transformers.__version__, curve=log), open(f"{folder}/training.json", "w"), indent=1)
    print(f"{name}: exact match {score:.3f}, {difference:.1e} from transformers", flush=True)
