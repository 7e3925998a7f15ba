// What: C = A B^T, tiles of both operands read in rows and shared by a block.
// Source: Programming Massively Parallel Processors (Kirk, Hwu), tiled multiplication.
// Shapes: A [m][k], B [n][k], C [m][n], all NUMBER. Block: 32 x 32 elements, 1024 threads; grid (n / 32, m / 32).
// Method: 1. a warp reads 32 neighbouring numbers of a row of each operand. 2. each thread multiplies a row of one tile with a row of the
//   other; rows of 33 words keep the lanes on different banks.
// Exactness: f32 sums in the order of k, zeros beyond its end. Cost: every operand read once per 32 rows or columns. Not handled: nothing.
#include "stored.cuh"

extern "C" __global__ void __launch_bounds__(1024)
gemm_coalesced(const NUMBER::Stored *a, const NUMBER::Stored *b, NUMBER::Stored *c, int m, int n, int k) {
    __shared__ float a_tile[32][33], b_tile[32][33];
    const int x = threadIdx.x & 31, y = threadIdx.x >> 5;
    const int row = blockIdx.y * 32 + y, b_row = blockIdx.x * 32 + y, column = blockIdx.x * 32 + x;
    float sum = 0.0f;
    for (int first = 0; first < k; first += 32) {
        const bool inside = first + x < k;
        a_tile[y][x] = inside && row < m ? NUMBER::to_float(a[(size_t)row * k + first + x]) : 0.0f;
        b_tile[y][x] = inside && b_row < n ? NUMBER::to_float(b[(size_t)b_row * k + first + x]) : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 32; i++) sum = __fmaf_rn(a_tile[y][i], b_tile[x][i], sum);
        __syncthreads();
    }
    if (row < m && column < n) c[(size_t)row * n + column] = NUMBER::from_float(sum);
}
