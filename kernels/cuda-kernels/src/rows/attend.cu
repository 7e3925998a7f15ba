// Causal attention of single rows over the cache, one warp per row and query head: the form for every shape.
// Scores: a lane takes a key; values: a lane takes features. Keys come in runs of 32 with the online softmax between.
#include "lanes.cuh"
#include "places.cuh"
#include "warp.cuh"

extern "C" __global__ void attend_rows(const float *q, const STORED::stored *keys, const STORED::stored *values,
                                       const u32 *slots, const u32 *entries, int heads, int key_heads, int value_heads,
                                       int key_dim, int value_dim, int capacity, int window, float cap, float scale,
                                       float *out) {
    extern __shared__ float query[];
    const int row = blockIdx.x, head = blockIdx.y, lane = threadIdx.x;
    const int groups = max(key_heads, value_heads), group = head / (heads / groups);
    const u32 slot = slots[row];
    const int len = (int)entries[row] + 1, first = window > 0 ? max(0, len - window) : 0;
    const size_t k_at = cache_at(slot, group * key_heads / groups, 0, key_heads, capacity, key_dim);
    const size_t v_at = cache_at(slot, group * value_heads / groups, 0, value_heads, capacity, value_dim);
    for (int f = lane; f < key_dim; f += 32) query[f] = q[((size_t)row * heads + head) * key_dim + f] * scale;
    __syncwarp();
    float most = NEGATIVE_INFINITY, sum = 0.0f, mixed[FEATURES];
#pragma unroll
    for (int i = 0; i < FEATURES; i++) mixed[i] = 0.0f;
    for (int start = first; start < len; start += 32) {
        const int key = start + lane, here = min(32, len - start);
        float score = NEGATIVE_INFINITY;
        if (key < len) {
            const STORED::stored *k = keys + k_at + (size_t)key * key_dim;
            score = 0.0f;
            for (int f = 0; f < key_dim; f++) score += query[f] * STORED::widen(k[f]);
            if (cap > 0.0f) score = cap * tanhf(score / cap);
        }
        const float now = fmaxf(most, warp_max(score)), shrink = expf(most - now);
        const float weight = expf(score - now);
        sum = sum * shrink + warp_sum(weight);
        most = now;
#pragma unroll
        for (int i = 0; i < FEATURES; i++) mixed[i] *= shrink;
        for (int j = 0; j < here; j++) {
            const float w = __shfl_sync(FULL_WARP, weight, j);
            const STORED::stored *v = values + v_at + (size_t)(start + j) * value_dim;
#pragma unroll
            for (int i = 0; i < FEATURES; i++)
                if (lane + 32 * i < value_dim) mixed[i] += w * STORED::widen(v[lane + 32 * i]);
        }
    }
#pragma unroll
    for (int i = 0; i < FEATURES; i++)
        if (lane + 32 * i < value_dim) out[((size_t)row * heads + head) * value_dim + lane + 32 * i] = mixed[i] / sum;
}
