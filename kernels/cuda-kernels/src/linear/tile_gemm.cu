// What: y = x W^T for many rows, weights and inputs through shared memory.
// Source: Marlin (Frantar et al. 2024, arXiv:2408.11743) §3: packed weights, asynchronous copies, dequantisation in registers.
// Shapes: tiles, inputs as in tile.cuh; y [rows][n] f32. Block: 128 outputs x 8 ROW_BLOCKS rows, 8 warps, two side by side;
//   grid (n / 128, rows / (8 ROW_BLOCKS), SPLIT ? 8 : 1).
// Method: 1. STAGES units of 64 columns of k on their way by cp.async. 2. operands by one 16-byte shared load each. 3. groups are scaled
//   on their sums, slices added in order. SPLIT: block z sums slice z into `y` [slice][rows][n]; add_slices adds them.
// Exactness: f32 sums in an order that depends on k alone; int8 exact. Same bits as tile_gemv.
// Cost: weights once per block's rows, inputs once per 128 outputs. 64 rows of 16-bit numbers are 43 FLOP per byte from L2, 128 are 64. Not handled: SPLIT of int8.
#include "scales.cuh"

#define OUTPUT_BLOCKS 8
// Of a warp.
#define MY_ROW_BLOCKS (ROW_BLOCKS / 2)

typedef WEIGHTS F;
typedef F::Sum Sum;

// Copies unit `unit` of the block's weights and inputs; what lies beyond the last of them becomes zero.
static __device__ __forceinline__ void fetch(uint4 *stage, const uint4 *tiles, const uint4 *x, int block, int blocks, int row_block,
                                             int row_blocks, int unit, int units) {
    const int weights = OUTPUT_BLOCKS * F::TILES * 32, inputs = ROW_BLOCKS * F::LOADS * 32;
    const u32 to = shared_address(stage);
#pragma unroll
    for (int i = 0; i < weights / 256; i++) {
        const int at = i * 256 + threadIdx.x, b = at / (F::TILES * 32), there = block + b < blocks;
        copy_async_16(to + at * 16, tiles + ((size_t)(there ? block + b : 0) * units + unit) * F::TILES * 32 + at % (F::TILES * 32), there);
    }
#pragma unroll
    for (int i = 0; i < inputs / 256; i++) {
        const int at = i * 256 + threadIdx.x, b = at / (F::LOADS * 32), there = row_block + b < row_blocks;
        copy_async_16(to + (weights + at) * 16, x + ((size_t)(there ? row_block + b : 0) * units + unit) * F::LOADS * 32 + at % (F::LOADS * 32),
                      there);
    }
}

extern "C" __global__ void __launch_bounds__(256)
tile_gemm(const uint4 *tiles, const uint4 *x, const half_bits *scales, const half_bits *zeros, const float *sums, const float *row_scales,
          const float *output_scales, float *y, int rows, int n, int units) {
    extern __shared__ uint4 stages[];
    const int STAGE = (OUTPUT_BLOCKS * F::TILES + ROW_BLOCKS * F::LOADS) * 32;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int blocks = (n + 15) / 16, row_blocks = (rows + 7) / 8;
    const int block = blockIdx.x * OUTPUT_BLOCKS, row_block = blockIdx.y * ROW_BLOCKS;
    const int my_blocks = (warp >> 1) * 2, my_row_blocks = (warp & 1) * MY_ROW_BLOCKS;
    const int begin = SPLIT ? slice_start(blockIdx.z, units, GRANULARITY) : 0;
    const int end = SPLIT ? slice_start(blockIdx.z + 1, units, GRANULARITY) : units;
    Sum sum[2][MY_ROW_BLOCKS][4] = {};
#if GROUP
    const int groups = units * 64 / GROUP, padded_rows = (rows + 7) / 8 * 8;
    GroupScales group_scales[2];
#pragma unroll
    for (int m = 0; m < 2; m++) {
        // output blocks that are not there have no scales
        const size_t at = ((size_t)min(block + my_blocks + m, blocks - 1) * groups + begin * 64 / GROUP) * 16 + (lane >> 2);
        group_scales[m] = {scales + at, zeros ? zeros + at : 0};
    }
    // row blocks that are not there have no sums
    int sums_at[MY_ROW_BLOCKS];
#pragma unroll
    for (int r = 0; r < MY_ROW_BLOCKS; r++) sums_at[r] = min(row_block + my_row_blocks + r, row_blocks - 1) * 8 + 2 * (lane & 3);
    if (zeros) sums += (size_t)(begin * 64 / GROUP) * padded_rows;
    float group_sum[2][MY_ROW_BLOCKS][4] = {};
#endif
#if !SPLIT
    Sum total[2][MY_ROW_BLOCKS][4] = {};
    int slice_end = 0;
    for (int slice = 0; slice_end == 0; slice++) slice_end = slice_start(slice + 1, units, GRANULARITY);
#endif
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (begin + s < end) fetch(stages + s * STAGE, tiles, x, block, blocks, row_block, row_blocks, begin + s, units);
        copy_async_commit();
    }
    int here = 0;
    for (int unit = begin; unit < end; unit++) {
        copy_async_wait<STAGES - 2>();
        // every thread's part of this unit has arrived, and nobody reads the stage that is filled next
        __syncthreads();
        const int next = unit + STAGES - 1, free_stage = here == 0 ? STAGES - 1 : here - 1;
        if (next < end) fetch(stages + free_stage * STAGE, tiles, x, block, blocks, row_block, row_blocks, next, units);
        copy_async_commit();
        const uint4 *weights = stages + here * STAGE + my_blocks * F::TILES * 32 + lane;
        const uint4 *inputs = stages + here * STAGE + (OUTPUT_BLOCKS * F::TILES + my_row_blocks * F::LOADS) * 32 + lane;
        here = here + 1 == STAGES ? 0 : here + 1;
#if GROUP
        LaneScales of_group[GROUP < 64 ? 2 : 1][2];
#pragma unroll
        for (int i = 0; i < (GROUP < 64 ? 2 : 1); i++)
#pragma unroll
            for (int m = 0; m < 2; m++)
                of_group[i][m] = lane_scales(group_scales[m], i);
#endif
        // one tile a unit: all its steps' words by one load of 16 bytes, or the loads of single words would conflict
        uint4 w[2][F::TILES];
        if (F::TILES == 1) w[0][0] = weights[0], w[1][0] = weights[32];
#pragma unroll
        for (int load = 0; load < F::LOADS; load++) {
            uint4 b[MY_ROW_BLOCKS];
#pragma unroll
            for (int r = 0; r < MY_ROW_BLOCKS; r++) b[r] = inputs[(r * F::LOADS + load) * 32];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int step = 2 * load + half;
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    if (F::TILES > 1) w[m][step % F::TILES] = weights[(m * F::TILES + step) * 32];
                    u32 a[4];
                    F::operand(a, w[m], step);
#pragma unroll
                    for (int r = 0; r < MY_ROW_BLOCKS; r++) {
#if GROUP
                        F::multiply(group_sum[m][r], a, word(b[r], 2 * half), word(b[r], 2 * half + 1));
#else
                        F::multiply(sum[m][r], a, word(b[r], 2 * half), word(b[r], 2 * half + 1));
#endif
                    }
                }
            }
#if GROUP
            const bool ends = GROUP == 32 || (load == 1 && (GROUP == 64 || (unit & 1)));
            if (ends) {
#pragma unroll
                for (int m = 0; m < 2; m++)
#pragma unroll
                    for (int r = 0; r < MY_ROW_BLOCKS; r++)
                        close_group(sum[m][r], group_sum[m][r], of_group[GROUP == 32 ? load : 0][m], sums + sums_at[r]);
                if (zeros) sums += padded_rows;
            }
#endif
        }
#if GROUP
        if (GROUP < 128 || (unit & 1)) {
            const int step = (GROUP < 64 ? 2 : 1) * 16;
#pragma unroll
            for (int m = 0; m < 2; m++) {
                group_scales[m].scales += step;
                if (zeros) group_scales[m].zeros += step;
            }
        }
#endif
#if !SPLIT
        if (unit + 1 == slice_end) {
#pragma unroll
            for (int m = 0; m < 2; m++)
#pragma unroll
                for (int r = 0; r < MY_ROW_BLOCKS; r++)
#pragma unroll
                    for (int i = 0; i < 4; i++) total[m][r][i] += sum[m][r][i], sum[m][r][i] = 0;
            // slices of nothing add nothing
            for (int slice = 1; slice <= SLICES && slice_end == unit + 1; slice++)
                slice_end = max(slice_end, slice_start(slice, units, GRANULARITY));
        }
#endif
    }
    if (SPLIT) y += (size_t)blockIdx.z * rows * n;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int r = 0; r < MY_ROW_BLOCKS; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int output = (block + my_blocks + m) * 16 + (lane >> 2) + 8 * (i >> 1);
                const int row = (row_block + my_row_blocks + r) * 8 + 2 * (lane & 3) + (i & 1);
                if (output >= n || row >= rows) continue;
#if SPLIT
                y[(size_t)row * n + output] = sum[m][r][i];
#else
                float value = (float)total[m][r][i];
                if (F::SCALED_BY_ROW) value = __fmul_rn(__fmul_rn(value, row_scales[row]), output_scales[output]);
                y[(size_t)row * n + output] = value;
#endif
            }
}
