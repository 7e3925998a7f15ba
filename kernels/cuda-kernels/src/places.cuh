// Where a cached entry lies: [slot][head][capacity][dim].
#pragma once

#include "numbers.cuh"

static __device__ __forceinline__ size_t cache_at(u32 slot, int head, u32 entry, int heads, int capacity, int dim) {
    return (((size_t)slot * heads + head) * capacity + entry) * dim;
}
