"""Compiles the kernels of this folder for sm_80 and sm_90 into artefacts/: needs no GPU, only `pip install triton==3.9.0`.

    python compile.py            writes artefacts/*.ptx and artefacts/kernels.json

The PTX is asked for in version 8.0, which every driver from CUDA 12.0 on assembles by itself; debug sections and comments are cut.
"""

import hashlib
import json
import pathlib
import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import attention
import dequant_matmul

HERE = pathlib.Path(__file__).parent
PTX_VERSION = 80
TYPE = {"bf16": "*bf16", "f16": "*fp16"}


# what is kept: all attention; of the product, the few that the ladder runs
ATTENTION = [(number, head_dim, capability) for number in ("bf16", "f16") for head_dim in (64, 128) for capability in (80, 90)]
MATMUL = [("bf16", 16, 80), ("bf16", 64, 90)]


def attention_variants():
    for number, head_dim, capability in ATTENTION:
        # mma.sync spells out every 16 x 8 product: fewer columns a step keep its text short
        constants = {"HEAD_DIM": head_dim, "BM": 64, "BN": 32 if capability == 80 else 64}
        signature = {a: TYPE[number] for a in ("q", "k", "v", "out")} | {"lse": "*fp32"}
        signature |= {a: "i32" for a in ("queries", "keys", "heads", "kv_heads", "causal")} | {"scale_log2": "fp32"}
        grid = ["ceil(queries / 64)", "heads", "batch"]
        yield f"attention_{number}_d{head_dim}", capability, attention.attention, signature, constants, grid


def matmul_variants():
    for number, rows, capability in MATMUL:
        constants = {"BM": rows, "BN": 64, "BK": 64}
        signature = {"x": TYPE[number], "codes": "*i32", "scales": "*fp16", "out": TYPE[number]}
        signature |= {a: "i32" for a in ("rows", "outer", "inner")}
        grid = [f"ceil(rows / {rows})", "ceil(outer / 64)", "1"]
        yield f"dequant_matmul_{number}_m{rows}", capability, dequant_matmul.dequant_matmul, signature, constants, grid


def cut(ptx):
    """Without debug sections, line marks, comments and spaces between operands."""
    ptx = re.sub(r"\.section[^{]*\{.*?\}", "", ptx, flags=re.S)
    lines = [re.sub(r"\s*//.*", "", line).rstrip() for line in ptx.split("\n")]
    lines = [line for line in lines if line and not re.match(r"\s*(\.(loc|file)\b|\$L__(tmp|func)\w*:)", line)]
    lines = [line.replace(", debug", "") for line in lines]
    lines = [re.sub(r"\s*([,{}])\s*", r"\1", re.sub(r"\s+", " ", line).strip()) for line in lines]
    return "\n".join(lines) + "\n"


def main():
    out = HERE / "artefacts"
    out.mkdir(exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    kernels = []
    for name, capability, function, signature, constants, grid in [*attention_variants(), *matmul_variants()]:
        # addresses, and the inner dimension, are multiples of 16
        even = [place for place, (a, kind) in enumerate(signature.items()) if kind.startswith("*") or a == "inner"]
        attributes = {(place,): [["tt.divisibility", 16]] for place in even}
        names = signature | {c: "constexpr" for c in constants}
        source = ASTSource(fn=function, signature=names, constexprs=constants, attrs=attributes)
        options = {"num_warps": 4, "num_stages": 2, "ptx_version": PTX_VERSION}
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        meta = compiled.metadata
        scratch = meta.global_scratch_size, meta.profile_scratch_size
        assert scratch == (0, 0), f"{name} wants scratch memory {scratch}"
        ptx = cut(compiled.asm["ptx"])
        file = f"{name}.sm_{capability}.ptx"
        (out / file).write_text(ptx)
        text = pathlib.Path(function.fn.__code__.co_filename)
        kernels.append({
            "file": file, "entry": meta.name, "arch": f"sm_{capability}", "args": signature, "constants": constants,
            "grid": grid, "threads": 32 * meta.num_warps, "shared_bytes": meta.shared, "source": text.name,
            "source_sha256": hashlib.sha256(text.read_bytes()).hexdigest(),
            "ptx_sha256": hashlib.sha256(ptx.encode()).hexdigest(),
        })
    record = {"triton": triton.__version__, "ptx_version": PTX_VERSION / 10, "trailing_pointers": 2, "kernels": kernels}
    (out / "kernels.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
