// Tiles of 128 rows as tensor copies leave them (DIM / 64 panels of [128][64], 128-byte swizzle) and the products of a warpgroup's
// 64 rows with them.
#pragma once
#include "attention.cuh"
#include "hopper.cuh"

#define ROWS 128
#define KEYS 128
#define PANEL_BYTES (128 * 128)
#define TILE_BYTES (DIM / 64 * PANEL_BYTES)

// Rows `row` … of one head of one sequence; what lies beyond the sequence arrives as zeros.
static __device__ __forceinline__ void load_tile(u32 to, const TensorMap *map, u32 barrier, int row, int head, int batch) {
    mbarrier_expect(barrier, TILE_BYTES);
    tensor_load_5d(to, map, barrier, 0, row, 0, head, batch);
}

// scores = (64 rows of queries from byte q on)·keysᵀ: issued, not waited for.
static __device__ __forceinline__ void multiply_keys(float (&scores)[KEYS / 2], u32 q, u32 keys) {
    wgmma_fence();
    const u64 left = wgmma_descriptor(q, 16), right = wgmma_descriptor(keys, 16);
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        const u32 on = step / 4 * PANEL_BYTES + step % 4 * 32;
        wgmma_64x128x16_shared<0>(NUMBER(), scores, descriptor_advance(left, on), descriptor_advance(right, on), step);
    }
    wgmma_commit();
}

// result += weights·values, weights in registers, values stored [key][dim]: issued, not waited for.
static __device__ __forceinline__ void multiply_values(float (&result)[DIM / 2], const u32 (&weights)[KEYS / 16][4], u32 values) {
    wgmma_fence();
    const u64 right = wgmma_descriptor(values, PANEL_BYTES);
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        const u64 from = descriptor_advance(right, step * 16 * 128);
#if DIM == 128
        wgmma_64x128x16_registers<1>(NUMBER(), result, weights[step], from, 1);
#else
        wgmma_64x64x16_registers<1>(NUMBER(), result, weights[step], from, 1);
#endif
    }
    wgmma_commit();
}

static __device__ __forceinline__ void pack_weights(u32 (&weights)[KEYS / 16][4], const float (&scores)[KEYS / 2]) {
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) left_operand<NUMBER>(weights[step], scores, step);
}
