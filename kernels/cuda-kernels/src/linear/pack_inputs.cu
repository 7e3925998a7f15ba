// What: f32 inputs in the order and the 16-bit numbers that tile_gemv and tile_gemm take, and their sums per group where asked for.
// Source: none; the order is ours (tile.cuh).
// Shapes: x [rows][k] f32 -> packed [rows / 8][units][2][32] uint4; gather [64 units] as in inputs.cuh; sums, or null: [group][rows, padded
//   to 8] for groups of 32 `loads` columns. Block: 256 threads.
// Method: 1. one thread rounds the 8 values of one lane in each of `loads` neighbouring loads. 2. it adds what it rounded, four lanes make
//   a row's group.
// Exactness: rounded to nearest even; values beyond f16's range become infinities. Sums in f32, in an order that is the group's.
// Cost: 4 bytes read, 2 written per value. Not handled: nothing.
#include "inputs.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256)
pack_inputs(const float *x, const int *gather, uint4 *packed, float *sums, int rows, int k, int units, int loads) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x;
    const int groups = 2 * units / loads, row_blocks = (rows + 7) / 8;
    // whole warps leave: 32 threads share row block and group
    if (at >= (size_t)row_blocks * groups * 32) return;
    const int lane = at & 31, group = (int)(at / 32 % groups), row_block = (int)(at / 32 / groups), row = row_block * 8 + (lane >> 2);
    float sum = 0.0f;
    for (int load = group * loads; load < (group + 1) * loads; load++) {
        u32 pair[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int column = load * 32 + 8 * i + 2 * (lane & 3);
            pair[i] = NUMBER::pack(input(x, gather, row, column, rows, k, units), input(x, gather, row, column + 1, rows, k, units));
            sum += NUMBER::to_float((unsigned short)pair[i]);
            sum += NUMBER::to_float((unsigned short)(pair[i] >> 16));
        }
        packed[((size_t)row_block * 2 * units + load) * 32 + lane] = make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
    if (sums == 0) return;
    sum += __shfl_xor_sync(FULL_WARP, sum, 1);
    sum += __shfl_xor_sync(FULL_WARP, sum, 2);
    if ((lane & 3) == 0) sums[(size_t)group * row_blocks * 8 + row] = sum;
}
