// What: C = A B^T, 8 x 8 elements a thread, 16 bytes a load.
// Source: Programming Massively Parallel Processors (Kirk, Hwu), thread coarsening; the swizzle is ours.
// Shapes: A [m][k], B [n][k], C [m][n], all NUMBER. Block: 128 x 128 elements, 256 threads; grid (n / 128, m / 128).
// Method: 1. 16 of k at a time as f32 in shared memory, k outermost, so that a thread reads 4 rows by one load. 2. rows are stored at
//   row ^ (2 V (k / V)), V numbers a load: the stores of a warp fall on 32 banks. 3. 64 multiply-adds per 4 loads of 16 bytes.
// Exactness: f32 sums in the order of k, zeros beyond its end. Cost: every operand read once per 128 rows or columns.
// Not handled: k must be a multiple of V (4 or 8).
#include "stored.cuh"

#define V (16 / (int)sizeof(NUMBER::Stored))

static __device__ __forceinline__ Values<V> row_values(const NUMBER::Stored *from, int row, int rows, int column, int k) {
    Values<V> zero = {};
    return row < rows && column < k ? load_values<NUMBER, V>(from + (size_t)row * k + column) : zero;
}

extern "C" __global__ void __launch_bounds__(256)
gemm_register_tile(const NUMBER::Stored *a, const NUMBER::Stored *b, NUMBER::Stored *c, int m, int n, int k) {
    __shared__ __align__(16) float a_tile[16][128], b_tile[16][128];
    const int x = threadIdx.x & 15, y = threadIdx.x >> 4;
    // loads: 16 / V threads a row
    const int piece = threadIdx.x % (16 / V), first_row = threadIdx.x / (16 / V), rows_at_once = 256 / (16 / V);
    float sum[8][8] = {};
    for (int first = 0; first < k; first += 16) {
#pragma unroll
        for (int row = first_row; row < 128; row += rows_at_once) {
            const Values<V> from_a = row_values(a, blockIdx.y * 128 + row, m, first + piece * V, k);
            const Values<V> from_b = row_values(b, blockIdx.x * 128 + row, n, first + piece * V, k);
#pragma unroll
            for (int i = 0; i < V; i++) {
                a_tile[piece * V + i][row ^ (2 * V * piece)] = from_a.v[i];
                b_tile[piece * V + i][row ^ (2 * V * piece)] = from_b.v[i];
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const int swizzle = 2 * V * (i / V);
            float rows[8], columns[8];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float4 p = *(const float4 *)&a_tile[i][(64 * half + 4 * y) ^ swizzle];
                const float4 q = *(const float4 *)&b_tile[i][(64 * half + 4 * x) ^ swizzle];
                rows[4 * half] = p.x, rows[4 * half + 1] = p.y, rows[4 * half + 2] = p.z, rows[4 * half + 3] = p.w;
                columns[4 * half] = q.x, columns[4 * half + 1] = q.y, columns[4 * half + 2] = q.z, columns[4 * half + 3] = q.w;
            }
#pragma unroll
            for (int r = 0; r < 8; r++)
#pragma unroll
                for (int s = 0; s < 8; s++) sum[r][s] = __fmaf_rn(rows[r], columns[s], sum[r][s]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < 8; r++)
#pragma unroll
        for (int s = 0; s < 8; s++) {
            const int row = blockIdx.y * 128 + 64 * (r >> 2) + 4 * y + (r & 3), column = blockIdx.x * 128 + 64 * (s >> 2) + 4 * x + (s & 3);
            if (row < m && column < n) c[(size_t)row * n + column] = NUMBER::from_float(sum[r][s]);
        }
}
