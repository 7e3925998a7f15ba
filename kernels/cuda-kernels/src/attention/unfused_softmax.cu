// What: rung a1, step 2 of 3: scores become weights in place, one warp per row.
// Source: none; the three-pass softmax.
// Shapes: scores [batch][heads][q_len][kv_len] f32, lse as attention.cuh; grid (q_len / 4, heads, batch), 128 threads.
// Method: largest visible score; 2^(s − max) and their sum; division. What a row does not see gets 0.
// Exactness: f32.
// Cost: three passes over the scores.
// Not handled: nothing that the ladder's launcher lets through.
#include "attention.cuh"

extern "C" __global__ void __launch_bounds__(128)
attention_unfused_softmax(float *scores, float *lse, int q_len, int kv_len, int heads, int kv_heads, int causal, int window, float scale) {
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int lane = threadIdx.x & 31, row = blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= q_len) return;
    float *mine = scores + problem.lse_row(row) * kv_len;
    const int begin = problem.begin(row), end = problem.end(row);
    float largest = NEGATIVE_INFINITY, sum = 0.0f;
    for (int key = begin + lane; key < end; key += 32) largest = fmaxf(largest, mine[key] * scale);
    largest = warp_max(largest);
    for (int key = begin + lane; key < end; key += 32) sum += exp2_fast(mine[key] * scale - largest);
    sum = warp_sum(sum);
    const float by = sum > 0.0f ? __fdividef(1.0f, sum) : 0.0f;
    for (int key = lane; key < kv_len; key += 32) {
        const bool seen = key >= begin && key < end;
        mine[key] = seen ? exp2_fast(mine[key] * scale - largest) * by : 0.0f;
    }
    if (lse && lane == 0) lse[problem.lse_row(row)] = sum > 0.0f ? (largest + __log2f(sum)) * LN_2 : NEGATIVE_INFINITY;
}
