// What: C = A B^T, one thread per element.
// Source: none; the first form that comes to mind.
// Shapes: A [m][k], B [n][k], C [m][n], all NUMBER. Block: 16 x 16 elements; grid (n / 16, m / 16).
// Method: 1. a chain of multiply-adds along k, operands from global memory.
// Exactness: f32 sums in the order of k. Cost: every operand read m or n times, by caches. Not handled: nothing.
#include "stored.cuh"

extern "C" __global__ void __launch_bounds__(256)
gemm_naive(const NUMBER::Stored *a, const NUMBER::Stored *b, NUMBER::Stored *c, int m, int n, int k) {
    const int column = blockIdx.x * 16 + (threadIdx.x & 15), row = blockIdx.y * 16 + (threadIdx.x >> 4);
    if (row >= m || column >= n) return;
    float sum = 0.0f;
    for (int i = 0; i < k; i++) sum = __fmaf_rn(NUMBER::to_float(a[(size_t)row * k + i]), NUMBER::to_float(b[(size_t)column * k + i]), sum);
    c[(size_t)row * n + column] = NUMBER::from_float(sum);
}
