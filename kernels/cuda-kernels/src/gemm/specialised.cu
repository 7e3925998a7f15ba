// What: C = A B^T on Hopper, one warpgroup that only copies, two that only multiply.
// Source: CUTLASS's warp-specialised kernels (Thakkar et al. 2023); the tile order of Triton's matrix multiplication tutorial.
// Shapes: A [m][k] by a tensor map of 64 x 128, B [n][k] of 64 x 256, C [m][n], all NUMBER (16 bits). Tile: 128 x 256, 384 threads;
//   B's box is 64 x 128 in a CLUSTER of 2; grid: tiles, or (PERSISTENT) as many clusters as fit; shared memory 4 x 48 KB + 1 KB,
//   32 KB more if PERSISTENT.
// Method: 1. the producer's one thread fills stages as consumers empty them, and gives its registers back. 2. a consumer issues a stage's
//   products, waits for those of the stage before and hands that one back. 3. PERSISTENT: a block takes every gridDim-th tile, the
//   producer running ahead into the next tile while this one is stored, 64 columns at a time through two panels of shared memory by
//   tensor copies; tiles go down GROUP_ROWS rows before they go right, for L2. 4. a CLUSTER's two blocks take tiles below each other: each
//   fetches half of B's tile for both, and fills a stage when the consumers of both have handed it back.
// Exactness: f32 sums on tensor cores, rounded once. Cost: A read once per 256 columns, B once per 128 rows (256 in a CLUSTER).
// Not handled: k (and n if PERSISTENT) must be a multiple of 8.
#include "specialised.cuh"
#include "stored.cuh"
#include "tensor_store.cuh"

struct Product {
    static __device__ __forceinline__ void issue(float (&sum)[128], u64 a, u64 b, int accumulate) {
        wgmma_64x256x16_shared<0>(NUMBER(), sum, a, b, accumulate);
    }
};

static __device__ __forceinline__ Tile tile_at(int index, int rows, int columns) {
    if (PERSISTENT) return grouped_tile(index, rows, columns);
    return {index / columns * CLUSTER, index % columns};
}

extern "C" __global__ void __launch_bounds__(384, 1)
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
gemm_specialised(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
#if PERSISTENT
                 const __grid_constant__ TensorMap c,
#else
                 unsigned short *c,
#endif
                 int m, int n, int k) {
    extern __shared__ char raw[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    const Stages stages = {(shared_address(raw) + 1023) & ~1023u, shared_address(barriers), shared_address(barriers + STAGES)};
    const int rows = (m + 128 * CLUSTER - 1) / (128 * CLUSTER), columns = (n + 255) / 256, tiles = rows * columns, steps = (k + 63) / 64;
    const int cluster = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER, rank = CLUSTER > 1 ? cluster_rank() : 0;
    const int group = threadIdx.x >> 7, lane = threadIdx.x & 127;
    if (threadIdx.x == 0) {
        tensor_prefetch(&a);
        tensor_prefetch(&b);
#if PERSISTENT
        tensor_prefetch(&c);
#endif
    }
    stages.begin();
    if (group == 0) {
        registers_give_back<24>();
        Ring ring = {0, 1};
        if (lane == 0)
            for (int index = cluster; index < tiles; index += clusters) stages.fill(ring, a, b, tile_at(index, rows, columns), rank, steps);
    } else {
        registers_take<240>();
        const int half = group - 1;
        Ring ring = {0, 0};
        for (int index = cluster; index < tiles; index += clusters) {
            const Tile tile = tile_at(index, rows, columns);
            const int first_row = (tile.row + rank) * 128 + half * 64, first_column = tile.column * 256;
            float sum[128];
            stages.multiply<Product>(ring, sum, half, lane, steps);
#if PERSISTENT
            const u32 panels = stages.base + STAGES * STAGE_BYTES + half * 16384;
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
                    tensor_store_2d(&c, panel, first_column + 64 * p, first_row);
                    tensor_store_commit();
                }
            }
#else
            const int row = first_row + 16 * (lane >> 5) + ((lane & 31) >> 2);
#pragma unroll
            for (int i = 0; i < 32; i++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    store_pair<NUMBER>(c, row + 8 * h, first_column + 8 * i + 2 * (lane & 3), m, n, sum[4 * i + 2 * h], sum[4 * i + 2 * h + 1]);
#endif
        }
        // shared memory must outlive the copies that read it
        if (PERSISTENT && lane == 0) tensor_store_wait<0>();
    }
    stages.end();
}
