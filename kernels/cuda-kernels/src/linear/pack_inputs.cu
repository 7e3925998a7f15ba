// What: f32 inputs in the order and the 16-bit numbers that tile_gemv and tile_gemm take.
// Source: none; the order is ours (tile.cuh).
// Shapes: x [rows][k] f32 -> packed [rows / 8][units][2][32] uint4; gather [64 units] as in inputs.cuh. Block: 256 threads.
// Method: one thread rounds the 8 values of one lane.
// Exactness: rounded to nearest even; values beyond f16's range become infinities. Cost: 4 bytes read, 2 written per value.
// Not handled: nothing.
#include "inputs.cuh"

extern "C" __global__ void __launch_bounds__(256)
pack_inputs(const float *x, const int *gather, uint4 *packed, int rows, int k, int units) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x;
    const size_t loads = (size_t)((rows + 7) / 8) * units * 64;
    if (at >= loads) return;
    const int lane = at & 31, row = (int)(at / ((size_t)units * 64)) * 8 + (lane >> 2);
    const int column = (int)(at / 32 % (units * 2)) * 32 + 2 * (lane & 3);
    u32 pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        pair[i] = NUMBER::pack(input(x, gather, row, column + 8 * i, rows, k, units), input(x, gather, row, column + 8 * i + 1, rows, k, units));
    packed[at] = make_uint4(pair[0], pair[1], pair[2], pair[3]);
}
