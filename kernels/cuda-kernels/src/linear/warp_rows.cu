// What: y = x W^T on the CUDA cores, weights of 32 or 16 bits, sums in f32.
// Source: none; plain arithmetic.
// Shapes: w [n][k] NUMBER, x [rows][k] f32, y [rows][n] f32. Block: 8 warps of OUTPUTS outputs x ROWS rows; grid (n / (8 OUTPUTS), rows / ROWS).
// Method: 1. each lane sums columns VECTOR (32 i + lane) ... with one chain of fused multiply-adds per element. 2. one tree over the lanes.
// Exactness: f32; the order of an element's sum depends on k alone, so not on ROWS, OUTPUTS or the number of rows.
// Cost: weights once per ROWS rows. Not handled: VECTOR > 1 needs k divisible by it.
#include "stored.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256)
warp_rows(const NUMBER::Stored *w, const float *x, float *y, int rows, int n, int k) {
    const int lane = threadIdx.x & 31, output = (blockIdx.x * 8 + (threadIdx.x >> 5)) * OUTPUTS, row = blockIdx.y * ROWS;
    if (output >= n) return;
    float sum[OUTPUTS][ROWS] = {};
#pragma unroll 2
    for (int column = lane * VECTOR; column < k; column += 32 * VECTOR) {
        Values<VECTOR> a[OUTPUTS];
        // outputs and rows beyond the last repeat it: their sums are not stored
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) a[o] = load_values<NUMBER, VECTOR>(w + (size_t)min(output + o, n - 1) * k + column);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const Values<VECTOR> b = load_values<F32, VECTOR>(x + (size_t)min(row + r, rows - 1) * k + column);
#pragma unroll
            for (int o = 0; o < OUTPUTS; o++)
#pragma unroll
                for (int i = 0; i < VECTOR; i++) sum[o][r] = __fmaf_rn(a[o].v[i], b.v[i], sum[o][r]);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) {
            const float total = warp_sum(sum[o][r]);
            if (lane == 0 && output + o < n && row + r < rows) y[(size_t)(row + r) * n + output + o] = total;
        }
}
