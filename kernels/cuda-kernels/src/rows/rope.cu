// Rotary positions, in place, and in one pass with the cut into q, k, v and the append to the cache.
#include "lanes.cuh"
#include "places.cuh"

// Feature f of a head whose first `dim` features turn by the row's angles.
static __device__ __forceinline__ float turned(const float *head, int f, int dim, int interleaved, const float *cos,
                                               const float *sin) {
    if (f >= dim) return head[f];
    const int pair = interleaved ? f >> 1 : f % (dim / 2);
    const int low = interleaved ? 2 * pair : pair, high = interleaved ? low + 1 : pair + dim / 2;
    return f == low ? head[low] * cos[pair] - head[high] * sin[pair] : head[high] * cos[pair] + head[low] * sin[pair];
}

// x [rows, heads·head_dim]; a thread turns one pair.
extern "C" __global__ void rope(const float *cos, const float *sin, int rows, int heads, int head_dim, int dim,
                                int interleaved, float *x) {
    const int half = dim / 2, all = rows * heads * half;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
        const int pair = i % half, head = i / half, angle = head / heads * half + pair;
        float *low = x + (size_t)head * head_dim + (interleaved ? 2 * pair : pair);
        float *high = low + (interleaved ? 1 : half);
        const float a = *low, b = *high, c = cos[angle], s = sin[angle];
        *low = a * c - b * s;
        *high = b * c + a * s;
    }
}

// qkv [rows, (heads + 2·kv_heads)·head_dim]: q to its own rows, turned; k, turned, and v to the cache. One block per row.
extern "C" __global__ void rope_append(const float *qkv, const float *cos, const float *sin, const u32 *slots,
                                       const u32 *entries, int heads, int kv_heads, int head_dim, int dim,
                                       int interleaved, int capacity, float *q, STORED::stored *keys,
                                       STORED::stored *values) {
    const int row = blockIdx.x, width = (heads + 2 * kv_heads) * head_dim;
    const float *from = qkv + (size_t)row * width;
    cos += row * (dim / 2), sin += row * (dim / 2);
    const u32 slot = slots[row], entry = entries[row];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const int head = i / head_dim, f = i % head_dim;
        const float *of = from + head * head_dim;
        if (head < heads) {
            q[(size_t)row * heads * head_dim + i] = turned(of, f, dim, interleaved, cos, sin);
        } else if (head < heads + kv_heads) {
            const size_t to = cache_at(slot, head - heads, entry, kv_heads, capacity, head_dim) + f;
            keys[to] = STORED::narrow(turned(of, f, dim, interleaved, cos, sin));
        } else {
            const size_t to = cache_at(slot, head - heads - kv_heads, entry, kv_heads, capacity, head_dim) + f;
            values[to] = STORED::narrow(of[f]);
        }
    }
}
