"""Product with 4-bit weights in Triton, unpacked inside the kernel: out = x Wᵀ, one program per tile of out.

Shapes: x [rows][inner], out [rows][outer] f16 or bf16; codes [outer][inner / 8] 32-bit words, nibble i of a word is input 8w + i;
scales [outer][inner / 128] f16. A weight is (code - 8) scale. Sums are f32; inner is a multiple of 128.
"""

import triton
import triton.language as tl


@triton.jit
def dequant_matmul(
    x, codes, scales, out, rows, outer, inner,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    step = tl.arange(0, BK)
    acc = tl.zeros([BM, BN], tl.float32)
    for first in range(0, inner, BK):
        k = first + step
        left = tl.load(x + row[:, None].to(tl.int64) * inner + k[None, :], mask=row[:, None] < rows, other=0.0)
        word = tl.load(codes + column[:, None].to(tl.int64) * (inner // 8) + k[None, :] // 8,
                       mask=column[:, None] < outer, other=0)
        code = (word >> (4 * (k[None, :] % 8))) & 15
        scale = tl.load(scales + column * (inner // 128) + first // 128, mask=column < outer, other=0.0)
        # exact in f16 and in bf16; the scale multiplies the group's sum, once
        weight = (code - 8).to(left.dtype)
        acc += tl.dot(left, tl.trans(weight)) * scale[None, :].to(tl.float32)
    at = row[:, None].to(tl.int64) * outer + column[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=(row[:, None] < rows) & (column[None, :] < outer))
