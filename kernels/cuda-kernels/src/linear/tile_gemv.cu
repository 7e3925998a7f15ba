// What: y = x W^T for few rows, every weight read once.
// Source: gpu design of this crate: weights as the A operand of mma.sync, dequantised in registers.
// Shapes: tiles, inputs as in tile.cuh, or (DIRECT) x [rows][64 units] f32; y [rows][n] f32. Block: 16 OUTPUT_BLOCKS outputs, 8 warps;
//   grid (n / (16 OUTPUT_BLOCKS), rows / (8 ROW_BLOCKS)).
// Method: 1. warp w sums slice w of k, AHEAD units of weights on their way. 2. groups are scaled on their sums.
//   3. the slices are added in order through shared memory.
// Exactness: f32 sums in an order that depends on k alone; int8 exact. Same bits as tile_gemm.
// Cost: weights once, inputs once per block (from L2): at 16 rows four times the bytes of 4-bit weights of 16 outputs, so
//   OUTPUT_BLOCKS are several where there are blocks enough. Not handled: nothing; n is padded by the packer.
#include "scales.cuh"

#if DIRECT
// The inputs of one load of a lane, rounded here: one kernel less for the price of twice the bytes of x.
static __device__ __forceinline__ uint4 rounded(const float *x) {
    float2 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = __ldg((const float2 *)(x + 8 * i));
    typedef WEIGHTS::Input Input;
    return make_uint4(Input::pack(v[0].x, v[0].y), Input::pack(v[1].x, v[1].y), Input::pack(v[2].x, v[2].y), Input::pack(v[3].x, v[3].y));
}
typedef float InputWord;
#else
static __device__ __forceinline__ uint4 rounded(const uint4 *x) { return __ldg(x); }
typedef uint4 InputWord;
#endif
// From one load of a lane to its next, in both forms.
#define INPUTS_APART 32

extern "C" __global__ void __launch_bounds__(32 * SLICES)
tile_gemv(const uint4 *tiles, const InputWord *x, const half_bits *scales, const half_bits *zeros, const float *sums, const float *row_scales,
          const float *output_scales, float *y, int rows, int n, int units) {
    typedef WEIGHTS F;
    typedef F::Sum Sum;
    // zeros want the sums of packed inputs; known here, their code is not compiled
    if (DIRECT) zeros = 0;
    __shared__ Sum partial[SLICES][OUTPUT_BLOCKS][ROW_BLOCKS][4][32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int first_block = blockIdx.x * OUTPUT_BLOCKS, first_row_block = blockIdx.y * ROW_BLOCKS;
    const int begin = slice_start(warp, units, GRANULARITY), end = slice_start(warp + 1, units, GRANULARITY);
    // addresses of the loop's first unit: within AHEAD units offsets are constants
    const uint4 *weights[OUTPUT_BLOCKS];
    size_t block[OUTPUT_BLOCKS];
#pragma unroll
    for (int o = 0; o < OUTPUT_BLOCKS; o++) {
        // blocks beyond the last repeat it: their sums are not stored
        block[o] = min(first_block + o, (n + 15) / 16 - 1);
        weights[o] = tiles + (block[o] * units + begin) * F::TILES * 32 + lane;
    }
    const InputWord *inputs[ROW_BLOCKS];
    bool there[ROW_BLOCKS];
#pragma unroll
    for (int r = 0; r < ROW_BLOCKS; r++) {
#if DIRECT
        inputs[r] = x + ((size_t)((first_row_block + r) * 8 + (lane >> 2)) * units + begin) * 64 + 2 * (lane & 3);
#else
        inputs[r] = x + ((size_t)(first_row_block + r) * units + begin) * F::LOADS * 32 + lane;
#endif
        // rows there are: the lanes of others have nothing to fetch
        there[r] = (first_row_block + r) * 8 + (lane >> 2) < rows;
    }
    Sum sum[OUTPUT_BLOCKS][ROW_BLOCKS][4] = {};
    uint4 ahead[AHEAD][OUTPUT_BLOCKS][F::TILES];
#pragma unroll
    for (int d = 0; d < AHEAD; d++)
#pragma unroll
        for (int o = 0; o < OUTPUT_BLOCKS; o++)
            if (begin + d < end) load_weights<F>(ahead[d][o], weights[o] + d * F::TILES * 32);
#if GROUP
    float group_sum[OUTPUT_BLOCKS][ROW_BLOCKS][4] = {};
    const int padded_rows = (rows + 7) / 8 * 8;
    const size_t first_group = (size_t)begin * 64 / GROUP;
    GroupScales group_scales[OUTPUT_BLOCKS];
#pragma unroll
    for (int o = 0; o < OUTPUT_BLOCKS; o++) {
        const size_t at = (block[o] * (units * 64 / GROUP) + first_group) * 16 + (lane >> 2);
        group_scales[o] = {scales + at, zeros ? zeros + at : 0};
    }
    if (zeros) sums += first_group * padded_rows + first_row_block * 8 + 2 * (lane & 3);
#endif
    for (int first = begin; first < end; first += AHEAD) {
#pragma unroll
        for (int d = 0; d < AHEAD; d++) {
            if (first + d >= end) break;
            uint4 w[OUTPUT_BLOCKS][F::TILES], b[ROW_BLOCKS][F::LOADS];
#pragma unroll
            for (int o = 0; o < OUTPUT_BLOCKS; o++) {
#pragma unroll
                for (int i = 0; i < F::TILES; i++) w[o][i] = ahead[d][o][i];
                if (first + d + AHEAD < end) load_weights<F>(ahead[d][o], weights[o] + (d + AHEAD) * F::TILES * 32);
            }
#pragma unroll
            for (int r = 0; r < ROW_BLOCKS; r++)
#pragma unroll
                for (int i = 0; i < F::LOADS; i++)
                    b[r][i] = there[r] ? rounded(inputs[r] + (d * F::LOADS + i) * INPUTS_APART) : make_uint4(0, 0, 0, 0);
#if GROUP
            // on their way together with the weights
            LaneScales of_group[GROUP < 64 ? 2 : 1][OUTPUT_BLOCKS];
#pragma unroll
            for (int i = 0; i < (GROUP < 64 ? 2 : 1); i++)
#pragma unroll
                for (int o = 0; o < OUTPUT_BLOCKS; o++)
                    if (64 * (d + 1) % GROUP == 0) of_group[i][o] = lane_scales(group_scales[o], 64 * d / GROUP + i);
#endif
#pragma unroll
            for (int step = 0; step < F::STEPS; step++) {
#pragma unroll
                for (int o = 0; o < OUTPUT_BLOCKS; o++) {
                    u32 a[4];
                    F::operand(a, w[o], step);
#pragma unroll
                    for (int r = 0; r < ROW_BLOCKS; r++) {
                        const u32 b0 = word(b[r][step >> 1], 2 * (step & 1)), b1 = word(b[r][step >> 1], 2 * (step & 1) + 1);
#if GROUP
                        F::multiply(group_sum[o][r], a, b0, b1);
#else
                        F::multiply(sum[o][r], a, b0, b1);
#endif
                    }
                }
#if GROUP
                // groups of 32 end after steps 1 and 3, of 64 after step 3, of 128 after step 3 of every second unit
                const int columns = 16 * (step + 1) + 64 * d;
                if (columns % GROUP == 0) {
#pragma unroll
                    for (int o = 0; o < OUTPUT_BLOCKS; o++)
#pragma unroll
                        for (int r = 0; r < ROW_BLOCKS; r++)
                            // a row block that is not there has no sums of inputs either
                            if (!zeros || (first_row_block + r) * 8 < rows)
                                close_group(sum[o][r], group_sum[o][r], of_group[GROUP < 64 ? step >> 1 : 0][o], sums + 8 * r);
                    if (zeros) sums += padded_rows;
                }
#endif
            }
        }
#pragma unroll
        for (int o = 0; o < OUTPUT_BLOCKS; o++) weights[o] += AHEAD * F::TILES * 32;
#pragma unroll
        for (int r = 0; r < ROW_BLOCKS; r++) inputs[r] += AHEAD * F::LOADS * INPUTS_APART;
#if GROUP
#pragma unroll
        for (int o = 0; o < OUTPUT_BLOCKS; o++) {
            group_scales[o].scales += AHEAD * 64 / GROUP * 16;
            if (zeros) group_scales[o].zeros += AHEAD * 64 / GROUP * 16;
        }
#endif
    }
#pragma unroll
    for (int o = 0; o < OUTPUT_BLOCKS; o++)
#pragma unroll
        for (int r = 0; r < ROW_BLOCKS; r++)
#pragma unroll
            for (int i = 0; i < 4; i++) partial[warp][o][r][i][lane] = sum[o][r][i];
    __syncthreads();
    for (int at = threadIdx.x; at < OUTPUT_BLOCKS * ROW_BLOCKS * 128; at += 32 * SLICES) {
        const int o = at / (ROW_BLOCKS * 128), r = at / 128 % ROW_BLOCKS, i = (at >> 5) & 3;
        Sum total = 0;
#pragma unroll
        for (int slice = 0; slice < SLICES; slice++) total += partial[slice][o][r][i][lane];
        const int output = (first_block + o) * 16 + (lane >> 2) + 8 * (i >> 1);
        const int row = (first_row_block + r) * 8 + 2 * (lane & 3) + (i & 1);
        if (output < n && row < rows) {
            float value = (float)total;
            if (F::SCALED_BY_ROW) value = __fmul_rn(__fmul_rn(value, row_scales[row]), output_scales[output]);
            y[(size_t)row * n + output] = value;
        }
    }
}
