"""PyTorch's scaled_dot_product_attention on the processor, f32, in its own layout [1, heads, rows, head_dim].

On a CUDA device: the same by a back end of its own choice of ours (`cuda-flash`, `cuda-cudnn`), and matrix products by
cuBLAS, in 16 bit, timed by the device's events.
"""

try:
    import numpy
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    leave("PyTorch is not installed for {} ({}); `pip install torch numpy` there, or name another with --python PATH".format(sys.executable, missing))

SAMPLE_NS = 2_000_000
_held = {}


CUDA = {"cuda-flash": "FLASH_ATTENTION", "cuda-cudnn": "CUDNN_ATTENTION"}
FLUSH_BYTES = 256 << 20
COLD_CALLS = 10


def load(ask):
    if ask["attention"] in CUDA:
        if not torch.cuda.is_available():
            raise Refused("PyTorch {} sees no CUDA device".format(torch.__version__))
        torch.set_grad_enabled(False)
        return {"say": "loaded", "kernels": "{} on {}".format(ask["attention"], torch.cuda.get_device_name())}
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


def _gpu_attention(problem, backend, dtype, generator):
    """A run, its output's rows and their f64 values: attention of [batch, heads, rows, head_dim]."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    decode = problem["op"] == "attention-decode"
    b, h, g, d, n = problem["batch"], problem["heads"], problem["kv_heads"], problem["head_dim"], problem["keys"] or problem["queries"]
    rows = 1 if decode else problem["queries"]
    causal = not decode and problem["causal"]
    if causal and rows != n:
        raise Refused("PyTorch's causal mask starts at the first key, so it needs as many queries as keys")
    draw = lambda heads, length: torch.randn(b, heads, length, d, device="cuda", generator=generator).to(dtype)
    q, k, v = draw(h, rows), draw(g, n), draw(g, n)
    chosen = getattr(SDPBackend, CUDA[backend])

    def run():
        with sdpa_kernel(chosen):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=h != g)

    def oracle():
        picked = sorted({0, rows // 2, rows - 1})
        scores = q[0, h - 1, picked].double() @ k[0, g - 1].double().T / d**0.5
        if causal:
            for place, row in enumerate(picked):
                scores[place, row + 1 :] = float("-inf")
        return run()[0, h - 1, picked].double(), scores.softmax(-1) @ v[0, g - 1].double()

    return run, oracle


def _gpu_gemm(problem, dtype, generator):
    rows = problem["m"] if problem["op"] == "gemm" else problem["rows"]
    a = torch.randn(rows, problem["k"], device="cuda", generator=generator).to(dtype)
    b = torch.randn(problem["n"], problem["k"], device="cuda", generator=generator).to(dtype)
    c = torch.empty(rows, problem["n"], device="cuda", dtype=dtype)
    run = lambda: torch.mm(a, b.T, out=c)

    def oracle():
        run()
        return c[-1].double(), a[-1].double() @ b.double().T

    return run, oracle


def _events(run, calls, flush):
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls if flush is not None else 1)]
    for start, end in marks:
        if flush is not None:
            flush.sum()
        start.record()
        for _ in range(1 if flush is not None else calls):
            run()
        end.record()
    torch.cuda.synchronize()
    return int(1e6 * sum(start.elapsed_time(end) for start, end in marks))


def gpu_kernel(ask):
    problem, backend = ask["problem"], ask["backend"]
    key = json.dumps([problem, backend])
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(problem.get("number"))
    if dtype is None or problem["op"] not in ("attention", "attention-decode", "gemm", "gemv"):
        raise Refused("PyTorch has no counterpart of this problem here")
    if key not in _held:
        generator = torch.Generator("cuda").manual_seed(ask["seed"])
        if problem["op"].startswith("attention"):
            _held[key] = _gpu_attention(problem, backend, dtype, generator)
        elif backend == "cuda-flash":
            _held[key] = _gpu_gemm(problem, dtype, generator)
        else:
            raise Refused("matrix products are timed beside cuda-flash, once")
    run, oracle = _held[key]
    got, wanted = oracle()
    deviation = float((got - wanted).abs().max() / wanted.abs().max())
    if not deviation <= 0.02:
        raise RuntimeError("differs from f64 by {} of the largest value".format(deviation))
    if ask["cold"]:
        flush = _held.setdefault("flush", torch.ones(FLUSH_BYTES // 4, device="cuda"))
        return {"say": "timed", "ns": _events(run, COLD_CALLS, flush), "calls": COLD_CALLS}
    _events(run, 3, None)
    calls = max(1, min(2000, int(3e6 / max(1, _events(run, 3, None) / 3))))
    return {"say": "timed", "ns": _events(run, calls, None), "calls": calls}


serve("pytorch", torch.__version__, [["build", " ".join(torch.__config__.show().split())[:900]]], {"load": load, "attention": attention, "gpu_kernel": gpu_kernel})
