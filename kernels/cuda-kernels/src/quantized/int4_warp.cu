// What: y = x W^T with 4-bit weights, one warp per output.
// Source: none; coalescing and a sum over lanes.
// Shapes: codes [n][k / 8] words, the lowest nibble first, scales [n][k / group] f16, x [rows][k] f32, y [rows][n] f32. Block: 8 warps; grid (n / 8, rows).
// Method: 1. a lane takes 32 codes at a time, 16 bytes, so a warp reads 512 bytes in a row. 2. its codes share a group. 3. one tree over lanes.
// Exactness: f32 sums of x * (code - 8). Cost: weights once per row; about 4 instructions per weight, above what the bandwidth leaves.
// Not handled: k must be a multiple of the group, the group of 32.
#include "numbers.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256)
int4_warp(const uint4 *codes, const half_bits *scales, const float4 *x, float *y, int rows, int n, int k, int group) {
    const int output = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31, row = blockIdx.y;
    if (output >= n || row >= rows) return;
    float total = 0.0f;
    for (int at = lane; at < k / 32; at += 32) {
        const uint4 q = __ldg(codes + (size_t)output * (k / 32) + at);
        const float scale = Half::to_float(__ldg(scales + (size_t)output * (k / group) + at * 32 / group));
        const u32 words[4] = {q.x, q.y, q.z, q.w};
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float4 v = __ldg(x + ((size_t)row * k + at * 32) / 4 + i);
            const u32 half = words[i >> 1] >> (16 * (i & 1));
            sum = __fmaf_rn((float)(half & 15) - 8.0f, v.x, sum);
            sum = __fmaf_rn((float)(half >> 4 & 15) - 8.0f, v.y, sum);
            sum = __fmaf_rn((float)(half >> 8 & 15) - 8.0f, v.z, sum);
            sum = __fmaf_rn((float)(half >> 12 & 15) - 8.0f, v.w, sum);
        }
        total = __fmaf_rn(scale, sum, total);
    }
    total = warp_sum(total);
    if (lane == 0) y[(size_t)row * n + output] = total;
}
