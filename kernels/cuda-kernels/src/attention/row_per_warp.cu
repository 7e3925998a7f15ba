// What: rung a0, one warp per query row: attention with an online softmax, to be read first.
// Source: Milakov and Gimelshein 2018 (online softmax); FlashAttention (Dao et al. 2022), algorithm 1 with tiles of one key.
// Shapes: as attention.cuh; grid (rows / 4, heads, batch), 128 threads.
// Method: for each key that the row sees: 1. score = q·k, summed over the lanes. 2. New maximum; what was summed so far shrinks.
//   3. The key's weight times its value is added. At the end: divide by the sum of weights.
// Exactness: f32; results rounded once to 16 bits.
// Cost: 4·DIM FLOPs per row and key; K and V are read again for every row.
// Not handled: nothing that the ladder's launcher lets through.
#include "attention.cuh"

#define PER_LANE (DIM / 32)

extern "C" __global__ void __launch_bounds__(128)
attention_row_per_warp(const unsigned short *q, const unsigned short *k, const unsigned short *v, unsigned short *out, float *lse, int q_len,
                       int kv_len, int heads, int kv_heads, int causal, int window, float scale) {
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int lane = threadIdx.x & 31, row = blockIdx.x * 4 + (threadIdx.x >> 5), at = lane * PER_LANE;
    if (row >= q_len) return;
    float query[PER_LANE], result[PER_LANE], largest = NEGATIVE_INFINITY, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) query[i] = NUMBER::to_float(q[problem.q_row(row) + at + i]), result[i] = 0.0f;

    for (int key = problem.begin(row); key < problem.end(row); key++) {
        const size_t from = problem.kv_row(key) + at;
        float score = 0.0f; // 1.
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) score = fmaf(query[i], NUMBER::to_float(k[from + i]), score);
        score = warp_sum(score) * scale;
        const float before = largest; // 2.
        largest = fmaxf(largest, score);
        const float shrink = exp2_fast(before - largest), weight = exp2_fast(score - largest);
        sum = fmaf(sum, shrink, weight);
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) result[i] = fmaf(weight, NUMBER::to_float(v[from + i]), result[i] * shrink); // 3.
    }
    const float by = sum > 0.0f ? __fdividef(1.0f, sum) : 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) out[problem.q_row(row) + at + i] = NUMBER::from_float(result[i] * by);
    if (lse && lane == 0) lse[problem.lse_row(row)] = sum > 0.0f ? (largest + __log2f(sum)) * LN_2 : NEGATIVE_INFINITY;
}
