// Keys or values of a Step's rows into their places in the cache. One block per row.
#include "lanes.cuh"
#include "places.cuh"

extern "C" __global__ void cache_append(const float *x, const u32 *slots, const u32 *entries, int heads, int dim,
                                        int capacity, STORED::stored *cache) {
    const int row = blockIdx.x, width = heads * dim;
    const u32 slot = slots[row], entry = entries[row];
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        cache[cache_at(slot, i / dim, entry, heads, capacity, dim) + i % dim] = STORED::narrow(x[(size_t)row * width + i]);
}
