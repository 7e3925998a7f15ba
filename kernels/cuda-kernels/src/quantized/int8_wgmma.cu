// What: y = x W^T of int8 codes on Hopper's warpgroup instructions, tiles brought by the tensor memory accelerator.
// Source: gemm/specialised.cuh; PTX ISA, wgmma with 8-bit operands.
// Shapes: x codes [rows][k], W codes [n][k] by tensor maps over pairs of codes (boxes 64 x 128 and 64 x 256), x_scales [rows], w_scales [n],
//   y [rows][n] f32. Tile: 128 x 256, 384 threads; grid: as many blocks as fit; shared memory 4 x 48 KB + 1 KB.
// Method: 1. 128 of k a stage, 32 a product. 2. blocks stay; the producer runs ahead into the next tile while this one is stored.
//   3. y = sum * sx * sw in this order.
// Exactness: exact sums, the bits of the other rungs. Cost: x read once per 256 outputs, W once per 128 rows.
// Not handled: k must be a multiple of 16.
#include "specialised.cuh"

struct Product {
    static __device__ __forceinline__ void issue(int (&sum)[128], u64 a, u64 b, int accumulate) { wgmma_64x256x32_s8(sum, a, b, accumulate); }
};

// Two neighbouring results, as one where the row starts on a pair.
static __device__ __forceinline__ void store(float *to, bool both, bool paired, float low, float high) {
    if (paired) {
        *(float2 *)to = make_float2(low, high);
    } else {
        *to = low;
        if (both) to[1] = high;
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
int8_wgmma(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, const float *x_scales, const float *w_scales, float *y, int rows,
           int n, int k) {
    extern __shared__ char raw[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    const Stages stages = {(shared_address(raw) + 1023) & ~1023u, shared_address(barriers), shared_address(barriers + STAGES)};
    const int row_tiles = (rows + 127) / 128, column_tiles = (n + 255) / 256, tiles = row_tiles * column_tiles, steps = (k + 127) / 128;
    const int group = threadIdx.x >> 7, lane = threadIdx.x & 127;
    if (threadIdx.x == 0) {
        tensor_prefetch(&x);
        tensor_prefetch(&w);
    }
    stages.begin();
    if (group == 0) {
        registers_give_back<24>();
        Ring ring = {0, 1};
        if (lane == 0)
            for (int index = blockIdx.x; index < tiles; index += gridDim.x)
                stages.fill(ring, x, w, grouped_tile(index, row_tiles, column_tiles), 0, steps);
    } else {
        registers_take<240>();
        const int half = group - 1;
        Ring ring = {0, 0};
        for (int index = blockIdx.x; index < tiles; index += gridDim.x) {
            const Tile tile = grouped_tile(index, row_tiles, column_tiles);
            int sum[128];
            stages.multiply<Product>(ring, sum, half, lane, steps);
            const int row = tile.row * 128 + half * 64 + 16 * (lane >> 5) + ((lane & 31) >> 2);
            const float of_row[2] = {row < rows ? __ldg(x_scales + row) : 0.0f, row + 8 < rows ? __ldg(x_scales + row + 8) : 0.0f};
#pragma unroll
            for (int i = 0; i < 32; i++) {
                const int column = tile.column * 256 + 8 * i + 2 * (lane & 3);
                if (column >= n) continue;
                const bool both = column + 1 < n, paired = (n & 1) == 0;
                const float of_low = __ldg(w_scales + column), of_high = both ? __ldg(w_scales + column + 1) : 0.0f;
#pragma unroll
                for (int h = 0; h < 2; h++)
                    if (row + 8 * h < rows)
                        store(y + (size_t)(row + 8 * h) * n + column, both, paired, __fmul_rn(__fmul_rn((float)sum[4 * i + 2 * h], of_row[h]), of_low),
                              __fmul_rn(__fmul_rn((float)sum[4 * i + 2 * h + 1], of_row[h]), of_high));
            }
        }
    }
}
