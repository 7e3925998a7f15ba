// What: the sums of the slices of k, added in order.
// Source: none; plain arithmetic.
// Shapes: partial [8][count] f32 -> y [count] f32. Block: 256 threads, one element each.
// Method: a chain from slice 0 to 7.
// Exactness: the order in which tile_gemv and tile_gemm add slices. Cost: 32 bytes read, 4 written per element.
// Not handled: nothing.
#include "numbers.cuh"

extern "C" __global__ void __launch_bounds__(256) add_slices(const float *partial, float *y, u64 count) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= count) return;
    float total = 0.0f;
#pragma unroll
    for (int slice = 0; slice < 8; slice++) total += partial[slice * count + at];
    y[at] = total;
}
