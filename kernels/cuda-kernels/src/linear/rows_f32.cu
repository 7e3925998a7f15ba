// What: y = x W^T in f32 on the CUDA cores.
// Source: none; plain arithmetic.
// Shapes: w [n][k], x [rows][k], y [rows][n], all f32. Block: 8 warps of OUTPUTS outputs x ROWS rows; grid (n / (8 OUTPUTS), rows / ROWS).
// Method: 1. each lane sums columns (32 i + lane) VECTOR ... with one chain of fused multiply-adds per element. 2. one tree over the lanes.
// Exactness: f32; the order of an element's sum depends on k alone, so not on ROWS, OUTPUTS or the number of rows.
// Cost: weights once per ROWS rows. Not handled: VECTOR = 4 needs k divisible by 4.
#include "warp.cuh"

struct Vector {
    float v[VECTOR];
};

static __device__ __forceinline__ Vector load(const float *from) {
    Vector r;
#if VECTOR == 4
    const float4 q = __ldg((const float4 *)from);
    r.v[0] = q.x, r.v[1] = q.y, r.v[2] = q.z, r.v[3] = q.w;
#else
    r.v[0] = __ldg(from);
#endif
    return r;
}

extern "C" __global__ void __launch_bounds__(256)
rows_f32(const float *w, const float *x, float *y, int rows, int n, int k) {
    const int lane = threadIdx.x & 31, output = (blockIdx.x * 8 + (threadIdx.x >> 5)) * OUTPUTS, row = blockIdx.y * ROWS;
    if (output >= n) return;
    float sum[OUTPUTS][ROWS] = {};
#pragma unroll 2
    for (int column = lane * VECTOR; column < k; column += 32 * VECTOR) {
        Vector a[OUTPUTS];
        // outputs and rows beyond the last repeat it: their sums are not stored
#pragma unroll
        for (int o = 0; o < OUTPUTS; o++) a[o] = load(w + (size_t)min(output + o, n - 1) * k + column);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const Vector b = load(x + (size_t)min(row + r, rows - 1) * k + column);
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
