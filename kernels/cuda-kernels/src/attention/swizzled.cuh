// Tiles of DIM 16-bit numbers a row in shared memory, 16-byte chunks swizzled, and the products of a warp's 16 rows with them.
#pragma once
#include "attention.cuh"

#define CHUNKS (DIM / 8)

// Byte at which chunk c of row r lies.
static __device__ __forceinline__ int swizzled(int row, int chunk) { return row * DIM * 2 + ((chunk ^ (row & 7)) << 4); }

// Rows row … row + 15, dims 16·step …: a left operand.
static __device__ __forceinline__ void load_left(u32 (&a)[4], u32 tile_at, int row, int step) {
    const int lane = threadIdx.x & 31;
    ldmatrix_x4(a, tile_at + swizzled(row + (lane & 15), 2 * step + (lane >> 4)));
}

// scores += A · (keys' dims 16·step …)ᵀ: two tiles of eight keys per load.
template <class Number, int count>
static __device__ __forceinline__ void multiply_keys(float (&scores)[count], const u32 (&a)[4], u32 keys, int step) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < count / 4; n += 2) {
        u32 b[4];
        ldmatrix_x4(b, keys + swizzled(8 * n + (lane & 7) + 8 * (lane >> 4), 2 * step + (lane >> 3 & 1)));
        mma_16x8x16<Number>(tile(scores, n), a, b[0], b[1]);
        mma_16x8x16<Number>(tile(scores, n + 1), a, b[2], b[3]);
    }
}

// result += weights · values, values stored [key][dim]: transposed while they are loaded.
template <class Number, int count, int keys>
static __device__ __forceinline__ void multiply_values(float (&result)[count], const float (&weights)[keys], u32 values) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int step = 0; step < keys / 8; step++) {
        u32 a[4];
        left_operand<Number>(a, weights, step);
#pragma unroll
        for (int n = 0; n < count / 4; n += 2) {
            u32 b[4];
            ldmatrix_x4_transposed(b, values + swizzled(16 * step + (lane & 15), n + (lane >> 4)));
            mma_16x8x16<Number>(tile(result, n), a, b[0], b[1]);
            mma_16x8x16<Number>(tile(result, n + 1), a, b[2], b[3]);
        }
    }
}
