// What: y = x W^T of int8 codes, one warp per output, four products an instruction.
// Source: none; dp4a.
// Shapes: codes [n][k / 4] words, x codes as quantise_rows leaves them, scales [rows], w_scales [n], y [rows][n] f32. Block: 8 warps; grid (n / 8, rows).
// Method: 1. lanes stride over words. 2. int32 sums, one tree over lanes. 3. y = sum * sx * sw in this order.
// Exactness: exact sums. Cost: weights once per row. Not handled: k must be a multiple of 4.
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256)
int8_dp4a(const int *codes, const int *x, const float *x_scales, const float *w_scales, float *y, int rows, int n, int k, int units) {
    const int output = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31, row = blockIdx.y;
    if (output >= n || row >= rows) return;
    int sum = 0;
    const int *row_codes = x + (size_t)(row >> 3) * units * 128 + (row & 7) * 16;
    for (int i = lane; i < k / 4; i += 32)
        sum = __dp4a(__ldg(codes + (size_t)output * (k / 4) + i), row_codes[(i >> 4) * 128 + (i & 3) * 4 + ((i >> 2) & 3)], sum);
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(FULL_WARP, sum, step);
    if (lane == 0) y[(size_t)row * n + output] = __fmul_rn(__fmul_rn((float)sum, x_scales[row]), w_scales[output]);
}
