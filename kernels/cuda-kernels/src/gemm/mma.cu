// What: C = A B^T on tensor cores of Ampere, operands copied in the background.
// Source: PTX ISA, mma.sync and ldmatrix; the pipeline of CUTLASS's multistage kernels (Thakkar et al. 2023).
// Shapes: A [m][k], B [n][k], C [m][n], all NUMBER (16 bits). Block: 128 x 128 elements, 8 warps of 64 x 32; grid (n / 128, m / 128).
// Method: 1. 32 of k a stage, STAGES stages by cp.async; 16-byte piece p of row r lies at p ^ (r / 2 % 4), so that 8 rows of ldmatrix
//   and 8 neighbouring copies fall on different banks. 2. fragments of the next 16 of k are loaded while these multiply.
// Exactness: f32 sums on tensor cores, rounded once. Cost: every operand read once per 128 rows or columns.
// Not handled: k must be a multiple of 8.
#include "mma.cuh"
#include "stored.cuh"

#define STAGE_BYTES (2 * 128 * 64)

static __device__ __forceinline__ u32 place(int row, int piece) { return row * 64 + ((piece ^ (row >> 1 & 3)) << 4); }

static __device__ __forceinline__ void fetch(u32 to, const unsigned short *from, int first_row, int rows, int column, int k) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int at = i * 256 + threadIdx.x, row = at >> 2, piece = at & 3;
        const bool there = first_row + row < rows && column + piece * 8 < k;
        copy_async_16(to + place(row, piece), there ? from + (size_t)(first_row + row) * k + column + piece * 8 : from, there);
    }
}

extern "C" __global__ void __launch_bounds__(256)
gemm_mma(const unsigned short *a, const unsigned short *b, unsigned short *c, int m, int n, int k) {
    extern __shared__ __align__(128) char stages[];
    const u32 base = shared_address(stages);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int block_row = blockIdx.y * 128, block_column = blockIdx.x * 128, warp_row = (warp >> 2) * 64, warp_column = (warp & 3) * 32;
    const int steps = (k + 31) / 32;
    float sum[4][4][4] = {};
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) {
            fetch(base + s * STAGE_BYTES, a, block_row, m, s * 32, k);
            fetch(base + s * STAGE_BYTES + 8192, b, block_column, n, s * 32, k);
        }
        copy_async_commit();
    }
    int here = 0;
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        // every thread's part of this stage has arrived, and nobody reads the one that is filled next
        __syncthreads();
        const int next = step + STAGES - 1, free_stage = here == 0 ? STAGES - 1 : here - 1;
        if (next < steps) {
            fetch(base + free_stage * STAGE_BYTES, a, block_row, m, next * 32, k);
            fetch(base + free_stage * STAGE_BYTES + 8192, b, block_column, n, next * 32, k);
        }
        copy_async_commit();
        const u32 a_stage = base + here * STAGE_BYTES, b_stage = a_stage + 8192;
        here = here + 1 == STAGES ? 0 : here + 1;
        u32 rows[2][4][4], columns[2][2][4];
#pragma unroll
        for (int half = -1; half < 2; half++) {
            if (half < 1) {
                const int kk = half + 1;
#pragma unroll
                for (int i = 0; i < 4; i++) ldmatrix_x4(rows[kk][i], a_stage + place(warp_row + 16 * i + (lane & 15), 2 * kk + (lane >> 4)));
#pragma unroll
                for (int j = 0; j < 2; j++)
                    ldmatrix_x4(columns[kk][j],
                                b_stage + place(warp_column + 16 * j + (lane & 7) + 8 * (lane >> 4), 2 * kk + (lane >> 3 & 1)));
            }
            if (half < 0) continue;
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    mma_16x8x16<NUMBER>(sum[i][j], rows[half][i], columns[half][j >> 1][2 * (j & 1)], columns[half][j >> 1][2 * (j & 1) + 1]);
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = block_row + warp_row + 16 * i + (lane >> 2) + 8 * h, column = block_column + warp_column + 8 * j + 2 * (lane & 3);
                store_pair<NUMBER>(c, row, column, m, n, sum[i][j][2 * h], sum[i][j][2 * h + 1]);
            }
}
