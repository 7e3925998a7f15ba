// What: rung a1, step 1 of 3: all scores q·k, seen or not, into device memory.
// Source: none; matrix product with tiles of 16 x 16 in shared memory (Programming Massively Parallel Processors, chapter 5).
// Shapes: q, k as attention.cuh; scores [batch][heads][q_len][kv_len] f32; grid (kv_len / 16, q_len / 16, batch·heads), 16 x 16 threads.
// Method: 16 dims at a time, each thread loads one element of each tile and owns one score.
// Exactness: f32.
// Cost: 2·DIM FLOPs per score, 4 bytes written per score.
// Not handled: masks; step 2 does them.
#include "attention.cuh"

extern "C" __global__ void __launch_bounds__(256)
attention_unfused_scores(const unsigned short *q, const unsigned short *k, float *scores, int q_len, int kv_len, int heads, int kv_heads) {
    __shared__ float q_tile[16][17], k_tile[16][17];
    const int x = threadIdx.x & 15, y = threadIdx.x >> 4, head = blockIdx.z % heads, batch = blockIdx.z / heads;
    const int row = blockIdx.y * 16 + y, key = blockIdx.x * 16 + x, loaded_key = blockIdx.x * 16 + y;
    const size_t q_from = ((size_t)(batch * q_len + min(row, q_len - 1)) * heads + head) * DIM;
    const size_t k_from = ((size_t)(batch * kv_len + min(loaded_key, kv_len - 1)) * kv_heads + head / (heads / kv_heads)) * DIM;
    float score = 0.0f;
    for (int d = 0; d < DIM; d += 16) {
        q_tile[y][x] = NUMBER::to_float(q[q_from + d + x]);
        k_tile[y][x] = NUMBER::to_float(k[k_from + d + x]);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; i++) score = fmaf(q_tile[y][i], k_tile[x][i], score);
        __syncthreads();
    }
    if (row < q_len && key < kv_len) scores[((size_t)blockIdx.z * q_len + row) * kv_len + key] = score;
}
