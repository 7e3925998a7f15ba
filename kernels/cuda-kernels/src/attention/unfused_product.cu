// What: rung a1, step 3 of 3: weights times values.
// Source: none; matrix product with tiles of 16 x 16 in shared memory (Programming Massively Parallel Processors, chapter 5).
// Shapes: weights [batch][heads][q_len][kv_len] f32; v, out as attention.cuh; grid (DIM / 16, q_len / 16, batch·heads), 16 x 16 threads.
// Method: 16 keys at a time, each thread loads one element of each tile and owns one result.
// Exactness: f32; results rounded once to 16 bits.
// Cost: 2·DIM FLOPs and 4 bytes read per weight.
// Not handled: nothing that the ladder's launcher lets through.
#include "attention.cuh"

extern "C" __global__ void __launch_bounds__(256)
attention_unfused_product(const float *weights, const unsigned short *v, unsigned short *out, int q_len, int kv_len, int heads, int kv_heads) {
    __shared__ float p_tile[16][17], v_tile[16][17];
    const int x = threadIdx.x & 15, y = threadIdx.x >> 4, head = blockIdx.z % heads, batch = blockIdx.z / heads;
    const int row = blockIdx.y * 16 + y, d = blockIdx.x * 16 + x, kv_head = head / (heads / kv_heads);
    const float *mine = weights + ((size_t)blockIdx.z * q_len + min(row, q_len - 1)) * kv_len;
    float value = 0.0f;
    for (int key = 0; key < kv_len; key += 16) {
        p_tile[y][x] = key + x < kv_len ? mine[key + x] : 0.0f;
        v_tile[y][x] = key + y < kv_len ? NUMBER::to_float(v[((size_t)(batch * kv_len + key + y) * kv_heads + kv_head) * DIM + d]) : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; i++) value = fmaf(p_tile[y][i], v_tile[i][x], value);
        __syncthreads();
    }
    if (row < q_len) out[((size_t)(batch * q_len + row) * heads + head) * DIM + d] = NUMBER::from_float(value);
}
