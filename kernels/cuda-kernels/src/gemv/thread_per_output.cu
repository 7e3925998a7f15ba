// What: y = x W^T, one thread per element.
// Source: none; the first form that comes to mind.
// Shapes: w [n][k] NUMBER, x [rows][k] f32, y [rows][n] f32. Block: 256 outputs; grid (n / 256, rows).
// Method: 1. a chain of multiply-adds along k; neighbouring threads read k numbers apart, so each load fetches 32 sectors.
// Exactness: f32; the order is that of k. Cost: weights once per row, by sectors of which 2 or 4 bytes are used at a time.
// Not handled: nothing.
#include "stored.cuh"

extern "C" __global__ void __launch_bounds__(256)
gemv_thread_per_output(const NUMBER::Stored *w, const float *x, float *y, int rows, int n, int k) {
    const int output = blockIdx.x * 256 + threadIdx.x, row = blockIdx.y;
    if (output >= n || row >= rows) return;
    float sum = 0.0f;
    for (int i = 0; i < k; i++) sum = __fmaf_rn(NUMBER::to_float(w[(size_t)output * k + i]), x[(size_t)row * k + i], sum);
    y[(size_t)row * n + output] = sum;
}
