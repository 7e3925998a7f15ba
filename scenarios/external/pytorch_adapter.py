"""PyTorch's scaled_dot_product_attention on the processor, f32, in its own layout [1, heads, rows, head_dim].

On a CUDA device: the same by a back end of its own choice of ours (`cuda-flash`, `cuda-cudnn`), and matrix products by
cuBLAS, in 16 bit, timed by the device's events.
"""

SAMPLE_NS = 2_000_000
_held = {}


CUDA = {"cuda-flash": "FLASH_ATTENTION", "cuda-cudnn": "CUDNN_ATTENTION"}


def load(ask):
    if ask["attention"] in CUDA:
        where = device_name()
        torch.set_grad_enabled(False)
        return {"say": "loaded", "kernels": "{} on {}".format(ask["attention"], where)}
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
    from torch.nn.attention import SDPBackend, sdpa_kernel

    b, h, g, rows, n, d, causal = attention_sizes(problem)
    if causal and rows != n:
        raise Refused("PyTorch's causal mask starts at the first key, so it needs as many queries as keys")
    q, k, v = drawn(generator, dtype, b, h, rows, d), drawn(generator, dtype, b, g, n, d), drawn(generator, dtype, b, g, n, d)
    chosen = getattr(SDPBackend, CUDA[backend])

    def run():
        with sdpa_kernel(chosen):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=h != g)

    def oracle():
        picked, wanted = attention_oracle(q[-1, -1], k[-1, -1], v[-1, -1], causal)
        return run()[-1, -1, picked].double(), wanted

    return run, oracle


def _gpu_product(problem, dtype, generator):
    rows = problem["m"] if problem["op"] == "gemm" else problem["rows"]
    a, b = drawn(generator, dtype, rows, problem["k"]), drawn(generator, dtype, problem["n"], problem["k"])
    c = torch.empty(rows, problem["n"], device=DEVICE, dtype=dtype)
    run = lambda: torch.mm(a, b.T, out=c)

    def oracle():
        run()
        return c[-1].double(), a[-1].double() @ b.double().T

    return run, oracle


def _make(problem, backend, generator):
    if problem["op"] in ("attention", "attention-decode"):
        return _gpu_attention(problem, backend, number(problem), generator)
    if problem["op"] not in ("gemm", "gemv"):
        raise Refused("PyTorch has no counterpart of this problem here")
    if backend != "cuda-flash":
        raise Refused("matrix products are timed beside cuda-flash, once")
    return _gpu_product(problem, number(problem), generator)


serve("pytorch", torch.__version__, [["build", " ".join(torch.__config__.show().split())[:900]]], {"load": load, "attention": attention, "gpu_kernel": gpu_kernel(_make)})
