"""What the adapters that time kernels on a CUDA device share: problems drawn on it, their f64 values, its clock.

Checked by f64 on the device for a few rows, then timed by the device's events: back to back, or each call behind one that
empties the L2 cache.
"""

try:
    import numpy
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    leave("PyTorch is not installed for {} ({}); `pip install torch numpy` there, or name another with --python PATH".format(sys.executable, missing))

DEVICE = "cuda"
FLUSH_BYTES = 256 << 20
COLD_CALLS = 10
NUMBERS = {"bf16": torch.bfloat16, "f16": torch.float16}
_problems = {}


def device_name():
    if not torch.cuda.is_available():
        raise Refused("PyTorch {} sees no CUDA device".format(torch.__version__))
    return torch.cuda.get_device_name()


def number(problem):
    """The type of a problem's values, bfloat16 where it leaves the choice."""
    dtype = NUMBERS.get(problem.get("number", "bf16"))
    if dtype is None:
        raise Refused("only 16-bit problems have a counterpart here")
    return dtype


def drawn(generator, dtype, *shape):
    return torch.randn(*shape, device=DEVICE, generator=generator).to(dtype)


def attention_sizes(problem):
    """batch, query heads, kv heads, queries, keys, head_dim, causal."""
    decode = problem["op"] == "attention-decode"
    rows = 1 if decode else problem["queries"]
    keys = problem["keys"] or problem["queries"]
    return problem["batch"], problem["heads"], problem["kv_heads"], rows, keys, problem["head_dim"], not decode and problem["causal"]


def attention_oracle(q, k, v, causal):
    """Rows of the last head, and their outputs in f64; q, k, v are one head's [rows, head_dim] and [keys, head_dim]."""
    rows, keys = q.shape[0], k.shape[0]
    picked = sorted({0, rows // 2, rows - 1})
    scores = q[picked].double() @ k.double().T / q.shape[1] ** 0.5
    if causal:
        for place, row in enumerate(picked):
            scores[place, row + 1 + keys - rows :] = float("-inf")
    return picked, scores.softmax(-1) @ v.double()


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


def gpu_kernel(make):
    """The answer to an ask: `make(problem, backend, generator)` gives a run, and a function of what it gave and should have."""

    def answer(ask):
        key = json.dumps([ask["problem"], ask["backend"]])
        if key not in _problems:
            _problems[key] = make(ask["problem"], ask["backend"], torch.Generator(DEVICE).manual_seed(ask["seed"]))
        run, oracle = _problems[key]
        got, wanted = oracle()
        deviation = float((got - wanted).abs().max() / wanted.abs().max())
        if not deviation <= 0.02:
            raise RuntimeError("differs from f64 by {} of the largest value".format(deviation))
        if ask["cold"]:
            flush = _problems.setdefault("flush", torch.ones(FLUSH_BYTES // 4, device=DEVICE))
            return {"say": "timed", "ns": _events(run, COLD_CALLS, flush), "calls": COLD_CALLS}
        _events(run, 3, None)
        calls = max(1, min(2000, int(3e6 / max(1, _events(run, 3, None) / 3))))
        return {"say": "timed", "ns": _events(run, calls, None), "calls": calls}

    return answer
