"""The Triton kernels of this repository, compiled and tuned by the Triton of this Python for its CUDA device.

`KERNELS` holds their texts. Beside them stand the same texts compiled ahead of time, as rungs of ours: the difference is what
tile sizes, warps and pipeline stages chosen on the device are worth.
"""

try:
    import triton
except ImportError as missing:
    leave("Triton is not installed for {} ({}); `pip install triton` there, or name another with --python PATH".format(sys.executable, missing))

import linecache

# rows and columns of a tile, warps, pipeline stages; those that do not fit a device are passed over by the tuner
ATTENTION = [(64, 64, 4, 3), (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 3)]
# columns and depth of a tile, warps, pipeline stages; rows are as many as the problem has, up to 64
PRODUCT = [(32, 128, 4, 4), (64, 128, 4, 3), (128, 64, 4, 3), (128, 128, 8, 3)]
GROUP = 128


def _kernel(name):
    """The function `name` of the text `name`, which Triton reads again through `linecache`."""
    text, place = KERNELS[name], "infermark-" + name + ".py"
    linecache.cache[place] = (len(text), None, text.splitlines(True), place)
    names = {"__name__": "infermark_" + name}
    exec(compile(text, place, "exec"), names)
    return names[name]


def load(ask):
    where = device_name()
    torch.set_grad_enabled(False)
    return {"say": "loaded", "kernels": "tuned on {}".format(where)}


def _attention(problem, dtype, generator):
    b, h, g, rows, n, d, causal = attention_sizes(problem)
    q, k, v = drawn(generator, dtype, b, rows, h, d), drawn(generator, dtype, b, n, g, d), drawn(generator, dtype, b, n, g, d)
    out, lse = torch.empty_like(q), torch.empty(b, h, rows, device=DEVICE)
    configs = [triton.Config({"BM": bm, "BN": bn}, num_warps=warps, num_stages=stages) for bm, bn, warps, stages in ATTENTION]
    kernel = triton.autotune(configs, key=["queries", "keys", "heads", "causal"])(_kernel("attention"))
    scale_log2 = 1.4426950408889634 / d**0.5

    def run():
        kernel[lambda meta: (triton.cdiv(rows, meta["BM"]), h, b)](q, k, v, out, lse, rows, n, h, g, int(causal), scale_log2, HEAD_DIM=d)

    def oracle():
        run()
        picked, wanted = attention_oracle(q[-1, :, -1], k[-1, :, -1], v[-1, :, -1], causal)
        return out[-1, picked, -1].double(), wanted

    return run, oracle


def _product(problem, dtype, generator):
    rows, n, k = problem["rows"], problem["n"], problem["k"]
    if problem["bits"] != 4 or problem["group"] != GROUP or k % GROUP:
        raise Refused("the Triton product has 4-bit weights in groups of {}, and whole groups".format(GROUP))
    x, out = drawn(generator, dtype, rows, k), torch.empty(rows, n, device=DEVICE, dtype=dtype)
    words = torch.randint(-(1 << 31), 1 << 31, (n, k // 8), device=DEVICE, generator=generator, dtype=torch.int64).to(torch.int32)
    scales = (torch.rand(n, k // GROUP, device=DEVICE, generator=generator) * 0.01 + 0.01).to(torch.float16)
    configs = [triton.Config({"BN": bn, "BK": bk}, num_warps=warps, num_stages=stages) for bn, bk, warps, stages in PRODUCT]
    kernel = triton.autotune(configs, key=["rows", "outer", "inner"])(_kernel("dequant_matmul"))
    tile = max(16, min(64, triton.next_power_of_2(rows)))

    def run():
        kernel[lambda meta: (triton.cdiv(rows, tile), triton.cdiv(n, meta["BN"]))](x, words, scales, out, rows, n, k, BM=tile)

    def oracle():
        run()
        picked = slice(max(0, n - 256), n)
        codes = (words[picked, :, None] >> (4 * torch.arange(8, device=DEVICE, dtype=torch.int32))) & 15
        weights = (codes.reshape(codes.shape[0], k).double() - 8) * scales[picked].double().repeat_interleave(GROUP, 1)
        return out[-1, picked].double(), x[-1].double() @ weights.T

    return run, oracle


def _make(problem, backend, generator):
    dtype = number(problem)
    if problem["op"] in ("attention", "attention-decode"):
        return _attention(problem, dtype, generator)
    if problem["op"] == "quantized":
        return _product(problem, dtype, generator)
    raise Refused("there is no Triton kernel for this problem")


serve("triton", triton.__version__, [["torch", torch.__version__]], {"load": load, "gpu_kernel": gpu_kernel(_make)})
