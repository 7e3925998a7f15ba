// What: memory read once, with and without being written again: the roofs that other kernels stand under.
// Source: STREAM (McCalpin 1995), copy.
// Shapes: from, to [count] uint4; sums [blocks x threads] u32 (reading alone). Block: 256 threads; grid: a few blocks a multiprocessor.
// Method: 1. threads stride over 16-byte words, four loads on their way each.
// Exactness: a copy; reading alone leaves each thread's exclusive or of what it read. Cost: 16 bytes read (and written) per word.
// Not handled: nothing.
#include "numbers.cuh"

extern "C" __global__ void __launch_bounds__(256) stream(const uint4 *from, uint4 *to, u32 *sums, u64 count) {
    const u64 step = (u64)gridDim.x * 256;
    const u64 thread = (u64)blockIdx.x * 256 + threadIdx.x;
    u32 sum = 0;
    for (u64 first = thread; first < count; first += 4 * step) {
        uint4 q[4];
#pragma unroll
        for (int i = 0; i < 4; i++) q[i] = first + i * step < count ? __ldcs(from + first + i * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#if WRITES
            if (first + i * step < count) __stcs(to + first + i * step, q[i]);
#else
            sum ^= q[i].x ^ q[i].y ^ q[i].z ^ q[i].w;
#endif
        }
    }
    if (!WRITES) sums[thread] = sum;
}
