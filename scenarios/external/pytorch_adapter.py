"""PyTorch's scaled_dot_product_attention on the processor, f32, in its own layout [1, heads, rows, head_dim]."""

try:
    import numpy
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    leave("PyTorch is not installed for {} ({}); `pip install torch numpy` there, or name another with --python PATH".format(sys.executable, missing))

SAMPLE_NS = 2_000_000
_held = {}


def load(ask):
    torch.set_num_threads(ask["threads"])
    torch.set_grad_enabled(False)
    got = torch.get_num_threads()
    if got != ask["threads"]:
        raise Refused("PyTorch took {} threads instead of {}".format(got, ask["threads"]))
    return {"say": "loaded", "kernels": "sdpa: " + torch.backends.cpu.get_cpu_capability()}


def _tensors(ask):
    """q, k, v of the file, each row-major [rows, heads * head_dim], laid out as PyTorch's users have them."""
    if ask["file"] not in _held:
        n, rows, d = ask["keys"], ask["rows"], ask["head_dim"]
        flat = numpy.fromfile(ask["file"], dtype="<f4")
        sizes = [(rows, ask["heads"]), (n, ask["kv_heads"]), (n, ask["kv_heads"])]
        parts, start = [], 0
        for length, heads in sizes:
            count = length * heads * d
            part = torch.from_numpy(flat[start : start + count]).view(length, heads, d)
            parts.append(part.transpose(0, 1).contiguous().unsqueeze(0))
            start += count
        _held[ask["file"]] = parts
    return _held[ask["file"]]


def attention(ask):
    rows, n, causal = ask["rows"], ask["keys"], ask["causal"]
    if causal and rows != n and rows != 1:
        raise Refused("PyTorch's causal mask starts at the first key, so it has either one row or all of them")
    q, k, v = _tensors(ask)
    more = {"is_causal": causal and rows == n}
    if ask["heads"] != ask["kv_heads"]:
        more["enable_gqa"] = True
    run = lambda: F.scaled_dot_product_attention(q, k, v, **more)
    if ask.get("output"):
        out = run()[0].transpose(0, 1).contiguous().numpy().astype("<f4")
        out.tofile(ask["output"])
        return {"say": "timed", "ns": 0, "calls": 0}
    calls = max(1, min(1000, SAMPLE_NS // max(1, timed(run))))
    ns = timed(lambda: [run() for _ in range(calls)])
    return {"say": "timed", "ns": ns, "calls": calls}


serve("pytorch", torch.__version__, [["build", " ".join(torch.__config__.show().split())[:900]]], {"load": load, "attention": attention})
