// y = x·Wᵀ, one warp per output feature and row: every shape, every float format, nothing reused.
#include "lanes.cuh"
#include "warp.cuh"

extern "C" __global__ void product_rows(const float *x, const STORED::stored *weight, int n, int k, float *y) {
    const int lane = threadIdx.x & 31, feature = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (feature >= n) return;
    const STORED::stored *w = weight + (size_t)feature * k;
    const float *row = x + (size_t)blockIdx.y * k;
    float sum = 0.0f;
    for (int i = lane; i < k; i += 32) sum += row[i] * STORED::widen(w[i]);
    sum = warp_sum(sum);
    if (lane == 0) y[(size_t)blockIdx.y * n + feature] = sum;
}
