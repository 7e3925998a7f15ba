// What: C = A B^T on Hopper, one warpgroup that only copies, two that only multiply.
// Source: CUTLASS's warp-specialised kernels (Thakkar et al. 2023); the tile order of Triton's matrix multiplication tutorial.
// Shapes: A [m][k] by a tensor map of 64 x 128, B [n][k] of 64 x 256, C [m][n], all NUMBER (16 bits). Tile: 128 x 256, 384 threads;
//   grid: tiles, or (PERSISTENT) as many blocks as fit; shared memory 4 x 48 KB + 1 KB, 32 KB more if PERSISTENT.
// Method: 1. the producer's one thread fills stages as consumers empty them, and gives its registers back. 2. a consumer issues a stage's
//   products, waits for those of the stage before and hands that one back. 3. PERSISTENT: a block takes every gridDim-th tile, the
//   producer running ahead into the next tile while this one is stored, 64 columns at a time through two panels of shared memory by
//   tensor copies; tiles go down GROUP_ROWS rows before they go right, for L2.
// Exactness: f32 sums on tensor cores, rounded once. Cost: A read once per 256 columns, B once per 128 rows.
// Not handled: k (and n if PERSISTENT) must be a multiple of 8.
#include "tensor_store.cuh"
#include "stored.cuh"

#define STAGES 4
#define A_BYTES (128 * 128)
#define STAGE_BYTES (A_BYTES + 256 * 128)
#define GROUP_ROWS 8

struct Tile {
    int row, column;
};

static __device__ __forceinline__ Tile tile_at(int index, int rows, int columns) {
#if PERSISTENT
    const int per_group = GROUP_ROWS * columns, group = index / per_group;
    const int height = min(GROUP_ROWS, rows - group * GROUP_ROWS), within = index % per_group;
    return {(group * GROUP_ROWS + within % height) * 128, within / height * 256};
#else
    return {index / columns * 128, index % columns * 256};
#endif
}

// A place in the ring of stages.
struct Ring {
    int stage;
    u32 phase;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

extern "C" __global__ void __launch_bounds__(384, 1)
gemm_specialised(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
#if PERSISTENT
                 const __grid_constant__ TensorMap c,
#else
                 unsigned short *c,
#endif
                 int m, int n, int k) {
    extern __shared__ char raw[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    const u32 base = (shared_address(raw) + 1023) & ~1023u, full = shared_address(barriers), empty = full + 8 * STAGES;
    const int rows = (m + 127) / 128, columns = (n + 255) / 256, tiles = rows * columns, steps = (k + 63) / 64;
    const int group = threadIdx.x >> 7, lane = threadIdx.x & 127;
    if (threadIdx.x == 0) {
        tensor_prefetch(&a);
        tensor_prefetch(&b);
#if PERSISTENT
        tensor_prefetch(&c);
#endif
        for (int s = 0; s < STAGES; s++) {
            mbarrier_init(full + 8 * s, 1);
            // one thread of each consumer: only wgmma reads a stage
            mbarrier_init(empty + 8 * s, 2);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (group == 0) {
        registers_give_back<24>();
        if (lane == 0) {
            Ring ring = {0, 1};
            for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
                const Tile tile = tile_at(index, rows, columns);
                for (int step = 0; step < steps; step++) {
                    mbarrier_wait(empty + 8 * ring.stage, ring.phase);
                    const u32 to = base + ring.stage * STAGE_BYTES, barrier = full + 8 * ring.stage;
                    mbarrier_expect(barrier, STAGE_BYTES);
                    tensor_load_2d(to, &a, barrier, step * 64, tile.row);
                    tensor_load_2d(to + A_BYTES, &b, barrier, step * 64, tile.column);
                    ring.advance();
                }
            }
        }
    } else {
        registers_take<240>();
        const int half = group - 1;
        Ring ring = {0, 0};
        for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
            const Tile tile = tile_at(index, rows, columns);
            float sum[128];
            int before = 0;
            for (int step = 0; step < steps; step++) {
                mbarrier_wait(full + 8 * ring.stage, ring.phase);
                const u64 left = wgmma_descriptor(base + ring.stage * STAGE_BYTES + half * 64 * 128, 16);
                const u64 right = wgmma_descriptor(base + ring.stage * STAGE_BYTES + A_BYTES, 16);
                wgmma_fence();
#pragma unroll
                for (int i = 0; i < 4; i++)
                    wgmma_64x256x16_shared<0>(NUMBER(), sum, descriptor_advance(left, 32 * i), descriptor_advance(right, 32 * i),
                                              step > 0 || i > 0);
                wgmma_commit();
                wgmma_wait<1>();
                if (step > 0 && lane == 0) mbarrier_arrive(empty + 8 * before);
                before = ring.stage;
                ring.advance();
            }
            wgmma_wait<0>();
            wgmma_pin(sum);
            if (lane == 0) mbarrier_arrive(empty + 8 * before);
#if PERSISTENT
            const u32 panels = base + STAGES * STAGE_BYTES + half * 16384;
#pragma unroll
            for (int p = 0; p < 4; p++) {
                const u32 panel = panels + (p & 1) * 8192;
                // the copy of two panels before has read its own
                if (lane == 0) tensor_store_wait<1>();
                named_barrier_sync(1 + half, 128);
#pragma unroll
                for (int i = 8 * p; i < 8 * p + 8; i += 2) {
                    const int row = 16 * (lane >> 5) + (lane & 15), piece = i % 8 + (lane >> 4 & 1);
                    stmatrix_x4(panel_place(panel, row, piece), NUMBER::pack(sum[4 * i], sum[4 * i + 1]), NUMBER::pack(sum[4 * i + 2], sum[4 * i + 3]),
                                NUMBER::pack(sum[4 * i + 4], sum[4 * i + 5]), NUMBER::pack(sum[4 * i + 6], sum[4 * i + 7]));
                }
                fence_async_shared();
                named_barrier_sync(1 + half, 128);
                if (lane == 0) {
                    tensor_store_2d(&c, panel, tile.column + 64 * p, tile.row + half * 64);
                    tensor_store_commit();
                }
            }
#else
            const int row = tile.row + half * 64 + 16 * (lane >> 5) + ((lane & 31) >> 2);
#pragma unroll
            for (int i = 0; i < 32; i++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    store_pair<NUMBER>(c, row + 8 * h, tile.column + 8 * i + 2 * (lane & 3), m, n, sum[4 * i + 2 * h], sum[4 * i + 2 * h + 1]);
#endif
        }
        // shared memory must outlive the copies that read it
        if (PERSISTENT && lane == 0) tensor_store_wait<0>();
    }
}
