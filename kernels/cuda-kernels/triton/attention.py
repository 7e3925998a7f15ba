"""Attention forward in Triton: softmax(scale Q Kᵀ + mask) V, one program per (query tile, query head, sequence).

Shapes: q and out [batch][queries][heads][HEAD_DIM], k and v [batch][keys][kv_heads][HEAD_DIM], lse [batch][heads][queries] f32,
natural logarithm. Query heads h use kv head h / (heads / kv_heads). Where `causal` is not 0,
columns above row + keys - queries are masked. Rows that see no key give zeros and an lse of minus infinity.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(acc, m, l, q, k_at, v_at, stride, first, keys, limit, scale_log2, BN: tl.constexpr, MASKED: tl.constexpr):
    columns = first + tl.arange(0, BN)
    inside = columns[:, None] < keys
    if MASKED:
        k = tl.load(k_at + columns[:, None] * stride, mask=inside, other=0.0)
    else:
        k = tl.load(k_at + columns[:, None] * stride)
    scores = tl.dot(q, tl.trans(k)) * scale_log2
    if MASKED:
        scores = tl.where(columns[None, :] <= limit[:, None], scores, float("-inf"))
    highest = tl.maximum(m, tl.max(scores, 1))
    # a row without a visible key so far has no maximum to subtract
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    p = tl.exp2(scores - shift[:, None])
    correction = tl.exp2(m - shift)
    l = l * correction + tl.sum(p, 1)
    if MASKED:
        v = tl.load(v_at + columns[:, None] * stride, mask=inside, other=0.0)
    else:
        v = tl.load(v_at + columns[:, None] * stride)
    acc = tl.dot(p.to(v.dtype), v, acc * correction[:, None])
    return acc, highest, l


@triton.jit
def attention(
    q, k, v, out, lse, queries, keys, heads, kv_heads, causal, scale_log2,
    HEAD_DIM: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):
    tile, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    kv_head = head // (heads // kv_heads)
    rows = tile * BM + tl.arange(0, BM)
    lanes = tl.arange(0, HEAD_DIM)
    at = ((batch * queries + rows[:, None]).to(tl.int64) * heads + head) * HEAD_DIM + lanes[None, :]
    query = tl.load(q + at, mask=rows[:, None] < queries, other=0.0)
    stride = kv_heads * HEAD_DIM
    start = (batch.to(tl.int64) * keys * kv_heads + kv_head) * HEAD_DIM
    k_at, v_at = k + start + lanes[None, :], v + start + lanes[None, :]
    acc = tl.zeros([BM, HEAD_DIM], tl.float32)
    m = tl.full([BM], float("-inf"), tl.float32)
    l = tl.zeros([BM], tl.float32)
    # the last column of each row; a row sees all keys or those up to its own place, counted from the end
    limit = tl.where(causal != 0, tl.minimum(rows + keys - queries, keys - 1), keys - 1)
    # what every row of the tile sees, and what its last row sees
    every = tl.where(causal != 0, tl.minimum(tl.maximum(tile * BM + keys - queries + 1, 0), keys), keys)
    end = tl.where(causal != 0, tl.maximum(tl.minimum((tile + 1) * BM + keys - queries, keys), 0), keys)
    whole = every // BN * BN
    for first in range(0, whole, BN):
        acc, m, l = _tile(acc, m, l, query, k_at, v_at, stride, first, keys, limit, scale_log2, BN, False)
    for first in range(whole, end, BN):
        acc, m, l = _tile(acc, m, l, query, k_at, v_at, stride, first, keys, limit, scale_log2, BN, True)
    inverse = tl.where(l > 0.0, 1.0 / l, 0.0)
    tl.store(out + at, (acc * inverse[:, None]).to(out.dtype.element_ty), mask=rows[:, None] < queries)
    natural = tl.where(l > 0.0, (m + tl.log2(l)) * 0.6931471805599453, float("-inf"))
    tl.store(lse + (batch * heads + head) * queries + rows, natural, mask=rows < queries)
