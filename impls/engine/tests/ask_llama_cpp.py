"""What llama.cpp answers about a GGUF file, for tests/real_models.rs:

    python3 ask_llama_cpp.py FILE.gguf QUESTIONS.json > ANSWERS.json

Its products, attention and cache are in f32 where the file's weights are, so ask about a file in f32 (`infermark convert --type f32`) what
the numbers are, and about the file as it came how its text is cut. Questions are any of
  texts       a list of texts: their ids, without and with the tokens that the vocabulary puts around a text
  greedy      {"prompts": [...], "tokens": N}: the most likely continuations, and by how much each token led the next best
  logits      {"prompts": [...], "most": N}: the N largest logits behind each prompt, with their ids
  perplexity  {"files": [...], "window": N}: of these texts one behind another, named from the questions' folder, as llama-perplexity
              computes it, summed in f64
Ends with 77 where llama-cpp-python is not installed.
"""

import ctypes
import json
import pathlib
import sys

try:
    import llama_cpp.llama_cpp as llama
    import numpy
except ImportError as missing:
    print("skipped: llama-cpp-python is not installed ({})".format(missing), file=sys.stderr)
    sys.exit(77)


class Model:
    def __init__(self, path, vocabulary_only, threads):
        quiet = llama.llama_log_callback(lambda level, text, data: None)
        self.quiet = quiet
        llama.llama_log_set(quiet, ctypes.c_void_p(0))
        how = llama.llama_model_default_params()
        how.n_gpu_layers = 0
        how.vocab_only = vocabulary_only
        self.model = llama.llama_model_load_from_file(path.encode(), how)
        if not self.model:
            raise SystemExit("llama.cpp does not read " + path)
        self.vocabulary = llama.llama_model_get_vocab(self.model)
        self.size = llama.llama_vocab_n_tokens(self.vocabulary)
        self.threads = threads

    def encode(self, text, special):
        raw = text.encode()
        room = len(raw) + 16
        ids = (llama.llama_token * room)()
        n = llama.llama_tokenize(self.vocabulary, raw, len(raw), ids, room, special, True)
        if n < 0:
            raise SystemExit("llama.cpp wants {} tokens for {!r}".format(-n, text))
        return list(ids[:n])

    def context(self, length):
        how = llama.llama_context_default_params()
        how.n_ctx = (length + 255) // 256 * 256
        how.n_batch = how.n_ubatch = how.n_ctx
        how.n_threads = how.n_threads_batch = self.threads
        how.type_k = how.type_v = llama.GGML_TYPE_F32
        how.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        how.no_perf = True
        context = llama.llama_init_from_model(self.model, how)
        if not context:
            raise SystemExit("llama.cpp makes no context of {} tokens".format(length))
        return context


def feed(context, tokens, position, every):
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i] = token
        batch.pos[i] = position + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = every(i)
    code = llama.llama_decode(context, batch)
    llama.llama_batch_free(batch)
    if code != 0:
        raise SystemExit("llama_decode of {} tokens returned {}".format(len(tokens), code))


def row(model, context, i):
    return numpy.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), shape=(model.size,))


def forget(context):
    llama.llama_memory_clear(llama.llama_get_memory(context), True)


def greedy(model, ask):
    prompts = [model.encode(prompt, True) for prompt in ask["prompts"]]
    context = model.context(max(map(len, prompts)) + ask["tokens"])
    answers = []
    for prompt in prompts:
        forget(context)
        tokens, leads, position, last = [], [], 0, prompt
        for _ in range(ask["tokens"]):
            feed(context, last, position, lambda i: i == len(last) - 1)
            position += len(last)
            logits = row(model, context, len(last) - 1)
            best = int(logits.argmax())
            second = numpy.partition(logits, -2)[-2]
            tokens.append(best)
            leads.append(round(float(logits[best] - second), 6))
            last = [best]
            if llama.llama_vocab_is_eog(model.vocabulary, best):
                break
        answers.append({"prompt": prompt, "tokens": tokens, "leads": leads})
    llama.llama_free(context)
    return answers


def logits(model, ask):
    prompts = [model.encode(prompt, True) for prompt in ask["prompts"]]
    context = model.context(max(map(len, prompts)))
    answers = []
    for prompt in prompts:
        forget(context)
        feed(context, prompt, 0, lambda i: i == len(prompt) - 1)
        values = row(model, context, len(prompt) - 1)
        ids = numpy.argsort(-values, kind="stable")[: ask["most"]]
        answers.append({"ids": ids.tolist(), "values": [round(float(v), 6) for v in values[ids]]})
    llama.llama_free(context)
    return answers


def perplexity(model, ask):
    # the whole text once, then windows whose first token is the one that begins a text, where the vocabulary puts it
    window = ask["window"]
    begins = llama.llama_vocab_get_add_bos(model.vocabulary)
    folder = pathlib.Path(sys.argv[2]).parent
    tokens = model.encode("".join((folder / file).read_text(encoding="utf-8") for file in ask["files"]), True)
    context = model.context(window)
    total, n = 0.0, 0
    for start in range(0, len(tokens) - window + 1, window):
        piece = tokens[start : start + window]
        if begins:
            piece[0] = llama.llama_vocab_bos(model.vocabulary)
        forget(context)
        feed(context, piece, 0, lambda i: i >= window // 2)
        for i in range(window // 2, window - 1):
            values = row(model, context, i).astype(numpy.float64)
            most = values.max()
            total += most + numpy.log(numpy.exp(values - most).sum()) - values[piece[i + 1]]
            n += 1
    llama.llama_free(context)
    return {"perplexity": float(numpy.exp(total / n)), "scored": n}


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        ask = json.load(file)
    only_text = not any(name in ask for name in ("greedy", "logits", "perplexity"))
    model = Model(sys.argv[1], only_text, ask.get("threads", 2))
    answers = {}
    if "texts" in ask:
        answers["texts"] = [{"plain": model.encode(t, False), "around": model.encode(t, True)} for t in ask["texts"]]
    for name, answer in (("greedy", greedy), ("logits", logits), ("perplexity", perplexity)):
        if name in ask:
            answers[name] = answer(model, ask[name])
    json.dump(answers, sys.stdout)
    print()


main()
