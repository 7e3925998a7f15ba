// What: sums of the inputs of each group, for weights whose zero is not 8.
// Source: none; plain arithmetic.
// Shapes: x [rows][k] f32 -> sums [group][rows, padded to 8]; `group` columns each: 32, 64 or 128. Block: 8 warps, one sum each.
// Method: each lane adds every 32nd value as rounded to 16 bit, then a tree over the lanes.
// Exactness: f32 sums of the numbers that are multiplied; the order is the group's. Cost: 4 bytes read per value.
// Not handled: nothing.
#include "inputs.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(256)
group_sums(const float *x, const int *gather, float *sums, int rows, int k, int units, int group) {
    const int lane = threadIdx.x & 31, padded = (rows + 7) / 8 * 8;
    const size_t at = (size_t)blockIdx.x * 8 + (threadIdx.x >> 5);
    if (at >= (size_t)padded * (64 * units / group)) return;
    const int row = (int)(at % padded), first = (int)(at / padded) * group;
    float sum = 0.0f;
    for (int column = first + lane; column < first + group; column += 32)
        sum += Half::to_float(Half::from_float(input(x, gather, row, column, rows, k, units)));
    sum = warp_sum(sum);
    if (lane == 0) sums[at] = sum;
}
