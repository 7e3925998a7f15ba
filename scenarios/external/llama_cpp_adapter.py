"""llama.cpp through llama-cpp-python's C functions: the same weights as a GGUF file, the same tokens, no sampling.

Weights come as raw f32 tensors with Hugging Face names. llama.cpp pairs neighbouring features in its rotary embedding
where Hugging Face pairs halves, so the rows of q and k are reordered, as its own converter does.
"""

try:
    import ctypes

    import llama_cpp as wheel
    import llama_cpp.llama_cpp as llama
    import numpy
except ImportError as missing:
    leave("llama.cpp is not installed for {} ({}); `pip install llama-cpp-python gguf` there, or name another with --python PATH".format(sys.executable, missing))

try:
    import gguf.quants
except ImportError:
    gguf = None  # a file that is there already needs no writer

_held = {}
_log = llama.llama_log_callback(lambda level, text, data: None)
llama.llama_log_set(_log, ctypes.c_void_p(0))

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
LAYER_NAMES = {
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


def _renamed(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return "blk.{}.{}".format(layer, LAYER_NAMES[rest])


def _pair_neighbours(weight, heads):
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def convert(ask):
    if gguf is None:
        raise Refused("the Python package that writes GGUF files is not installed for {}; `pip install gguf` there".format(sys.executable))
    m, types = ask["model"], gguf.GGMLQuantizationType
    matrices = types[ask["weights"].upper()]
    ends = types.F32 if matrices == types.F32 else types.F16
    files = {types.F32: 0, types.F16: 1, types.Q4_0: 2, types.Q8_0: 7}
    writer = gguf.GGUFWriter(ask["gguf"], "llama")
    writer.add_context_length(m["max_positions"])
    writer.add_embedding_length(m["hidden"])
    writer.add_block_count(m["layers"])
    writer.add_feed_forward_length(m["ffn"])
    writer.add_head_count(m["heads"])
    writer.add_head_count_kv(m["kv_heads"])
    writer.add_key_length(m["head_dim"])
    writer.add_value_length(m["head_dim"])
    writer.add_rope_dimension_count(m["head_dim"])
    writer.add_rope_freq_base(m["rope_theta"])
    writer.add_layer_norm_rms_eps(m["norm_eps"])
    writer.add_vocab_size(m["vocab"])
    writer.add_file_type(files[matrices])
    writer.add_tokenizer_model("none")
    for tensor in ask["tensors"]:
        shape = tensor["shape"]
        values = numpy.memmap(ask["raw"], dtype="<f4", mode="r", offset=tensor["offset"], shape=tuple(shape))
        if "q_proj" in tensor["name"]:
            values = _pair_neighbours(values, m["heads"])
        if "k_proj" in tensor["name"]:
            values = _pair_neighbours(values, m["kv_heads"])
        kind = types.F32 if len(shape) == 1 else matrices if "layers" in tensor["name"] else ends
        coded = gguf.quants.quantize(numpy.ascontiguousarray(values), kind)
        writer.add_tensor(_renamed(tensor["name"]), coded, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"say": "done"}


def _open(ask, extra):
    model = llama.llama_model_default_params()
    model.n_gpu_layers = 0
    model.use_extra_bufts = extra
    _held["model"] = llama.llama_model_load_from_file(ask["gguf"].encode(), model)
    if not _held["model"]:
        raise RuntimeError("llama.cpp could not load " + ask["gguf"])
    context = llama.llama_context_default_params()
    context.n_seq_max = ask["sequences"]
    # one cache for all, so that a sequence may use what others do not
    context.kv_unified = True
    context.n_ctx = (ask["context_tokens"] * ask["sequences"] + 255) // 256 * 256
    context.n_batch = context.n_ctx
    context.n_threads = context.n_threads_batch = ask["threads"]
    context.type_k = context.type_v = llama.GGML_TYPE_F16 if ask["kv"] == "f16" else llama.GGML_TYPE_F32
    flash = ask["attention"] == "flash"
    context.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context.no_perf = True
    _held["context"] = llama.llama_init_from_model(_held["model"], context)
    if not _held["context"]:
        raise Refused("llama.cpp makes no context with {} attention and a {} cache".format(ask["attention"], ask["kv"]))
    _held["vocab"] = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(_held["model"]))
    return context.n_ubatch


def _survives(ask):
    """Whether weights in the layouts of special instructions (AMX, repacked) work here: tried where a crash costs a child alone."""
    child = os.fork()
    if child == 0:
        try:
            _open(dict(ask, threads=1), True)
            for n in (1, 2, 40):
                _forget()
                _feed([1] * min(n, ask["context_tokens"]))
            if ask["sequences"] > 1:
                # several rows of logits are a product of their own
                _forget()
                _decode_together({"sequences": ask["sequences"], "tokens": [1] * ask["sequences"], "new_tokens": 1})
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _forget_peak():
    """From here on the peak is that of the model: without the interpreter, and without what converting took."""
    try:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")
        with open("/proc/self/statm") as sizes:
            _held["before"] = int(sizes.read().split()[1]) * resource.getpagesize()
    except OSError:
        _held["before"] = 0


def _peak():
    return max(peak_rss_bytes() - _held["before"], 0)


def load(ask):
    extra = "AMX_INT8 = 1" not in system or _survives(ask)
    _forget_peak()
    start = time.perf_counter_ns()
    ubatch = _open(ask, extra)
    layouts = "" if extra else ", layouts for special instructions left out: they crash here"
    said = "ggml-cpu, ubatch {}, {} KV{}".format(ubatch, ask["kv"], layouts)
    return {"say": "loaded", "kernels": said, "ns": time.perf_counter_ns() - start}


def _forget():
    llama.llama_memory_clear(llama.llama_get_memory(_held["context"]), True)


def _feed(tokens):
    array = (llama.llama_token * len(tokens))(*tokens)
    code = llama.llama_decode(_held["context"], llama.llama_batch_get_one(array, len(tokens)))
    if code != 0:
        raise RuntimeError("llama_decode of {} tokens returned {}".format(len(tokens), code))
    llama.llama_synchronize(_held["context"])


def _row(i):
    pointer = llama.llama_get_logits_ith(_held["context"], i)
    return numpy.ctypeslib.as_array(pointer, shape=(_held["vocab"],))


def logits(ask):
    """Every row of the prompt, fed token by token: the path that decoding takes; its last row again in one batch."""
    _forget()
    tokens, out = ask["tokens"], []
    for token in tokens:
        _feed([token])
        out.append(_row(-1).copy())
    _forget()
    _feed(tokens)
    out.append(_row(-1).copy())
    _forget()
    numpy.stack(out).astype("<f4").tofile(ask["output"])
    return {"say": "done"}


def prefill(ask):
    _forget()
    return {"say": "timed", "ns": timed(lambda: _feed(ask["tokens"])), "calls": 1, "peak_rss_bytes": _peak()}


def decode(ask):
    """The prompt is not timed; every new token is the most likely one, found as our greedy decoder finds it."""
    _forget()
    if ask["sequences"] > 1:
        return _decode_together(ask)
    _feed(ask["tokens"])
    last = [int(_row(-1).argmax())]

    def steps():
        for _ in range(ask["new_tokens"]):
            _feed(last)
            last[0] = int(_row(-1).argmax())

    return {"say": "timed", "ns": timed(steps), "calls": ask["new_tokens"], "peak_rss_bytes": _peak()}


def _decode_together(ask):
    """One row of every sequence in each step; prompts, a part of the tokens each, are not timed."""
    n, every = ask["sequences"], len(ask["tokens"]) // ask["sequences"]
    batch = llama.llama_batch_init(max(n, every), 0, 1)

    def put(row, token, position, sequence, logits):
        batch.token[row], batch.pos[row], batch.logits[row] = token, position, logits
        batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence

    def run(rows):
        batch.n_tokens = rows
        code = llama.llama_decode(_held["context"], batch)
        if code != 0:
            raise RuntimeError("llama_decode of {} rows returned {}".format(rows, code))
        llama.llama_synchronize(_held["context"])

    last = []
    for sequence in range(n):
        for i in range(every):
            put(i, ask["tokens"][sequence * every + i], i, sequence, i == every - 1)
        run(every)
        last.append(int(_row(-1).argmax()))

    def steps():
        for step in range(ask["new_tokens"]):
            for sequence in range(n):
                put(sequence, last[sequence], every + step, sequence, True)
            run(n)
            for sequence in range(n):
                last[sequence] = int(_row(sequence).argmax())

    ns = timed(steps)
    llama.llama_batch_free(batch)
    return {"say": "timed", "ns": ns, "calls": ask["new_tokens"], "peak_rss_bytes": _peak()}


system = " ".join(llama.llama_print_system_info().decode().split())
serve("llama.cpp", "llama-cpp-python " + wheel.__version__, [["build", system]], {"convert": convert, "load": load, "logits": logits, "prefill": prefill, "decode": decode})
