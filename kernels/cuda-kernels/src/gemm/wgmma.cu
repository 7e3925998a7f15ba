// What: C = A B^T on Hopper's warpgroup instructions, tiles brought by the tensor memory accelerator.
// Source: PTX ISA, wgmma and cp.async.bulk.tensor; the 128-byte swizzle is the hardware's.
// Shapes: A [m][k], B [n][k] by tensor maps (boxes 64 x 128), C [m][n], all NUMBER (16 bits). Block: 128 x 128, 2 warpgroups of 64 x 128;
//   grid (n / 128, m / 128); shared memory STAGES x 32 KB + 1 KB.
// Method: 1. one thread asks for 64 of k STAGES steps ahead; a barrier counts the bytes. 2. both warpgroups multiply from shared memory,
//   wait, and hand the stage back. What lies outside the matrices arrives as zeros.
// Exactness: f32 sums on tensor cores, rounded once. Cost: every operand read once per 128 rows or columns.
// Not handled: k must be a multiple of 8.
#include "hopper.cuh"
#include "stored.cuh"

#define STAGE_BYTES (2 * 128 * 128)

extern "C" __global__ void __launch_bounds__(256)
gemm_wgmma(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, unsigned short *c, int m, int n, int k) {
    extern __shared__ char raw[];
    __shared__ __align__(8) u64 barriers[STAGES];
    const u32 base = (shared_address(raw) + 1023) & ~1023u, full = shared_address(barriers);
    const int steps = (k + 63) / 64, group = threadIdx.x >> 7, lane = threadIdx.x & 127;
    const int block_row = blockIdx.y * 128, block_column = blockIdx.x * 128;
    const bool leader = threadIdx.x == 0;
    if (leader) {
        tensor_prefetch(&a);
        tensor_prefetch(&b);
        for (int s = 0; s < STAGES; s++) mbarrier_init(full + 8 * s, 1);
        mbarrier_init_fence();
    }
    __syncthreads();
    const auto fetch = [&](int stage, int step) {
        mbarrier_expect(full + 8 * stage, STAGE_BYTES);
        tensor_load_2d(base + stage * STAGE_BYTES, &a, full + 8 * stage, step * 64, block_row);
        tensor_load_2d(base + stage * STAGE_BYTES + STAGE_BYTES / 2, &b, full + 8 * stage, step * 64, block_column);
    };
    if (leader)
        for (int s = 0; s < STAGES && s < steps; s++) fetch(s, s);
    float sum[64];
    int stage = 0;
    u32 phase = 0;
    for (int step = 0; step < steps; step++) {
        mbarrier_wait(full + 8 * stage, phase);
        const u64 rows = wgmma_descriptor(base + stage * STAGE_BYTES + group * 64 * 128, 16);
        const u64 columns = wgmma_descriptor(base + stage * STAGE_BYTES + STAGE_BYTES / 2, 16);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < 4; i++)
            wgmma_64x128x16_shared<0>(NUMBER(), sum, descriptor_advance(rows, 32 * i), descriptor_advance(columns, 32 * i), step > 0 || i > 0);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_pin(sum);
        // both warpgroups have read the stage
        __syncthreads();
        if (leader && step + STAGES < steps) fetch(stage, step + STAGES);
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
    const int row = block_row + group * 64 + 16 * (lane >> 5) + ((lane & 31) >> 2);
#pragma unroll
    for (int i = 0; i < 16; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            store_pair<NUMBER>(c, row + 8 * h, block_column + 8 * i + 2 * (lane & 3), m, n, sum[4 * i + 2 * h], sum[4 * i + 2 * h + 1]);
}
