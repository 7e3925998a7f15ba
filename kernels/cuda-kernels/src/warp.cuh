// Sums and maxima over the lanes of a warp and the warps of a block. Orders are fixed, so a result does not depend on timing.
#pragma once

#define FULL_WARP 0xffffffffu

static __device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(FULL_WARP, x, step);
    return x;
}

static __device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, step));
    return x;
}

// Every thread gets the sum over the block; `scratch` holds 32 floats and may be used again after the call.
static __device__ __forceinline__ float block_sum(float x, float *scratch) {
    x = warp_sum(x);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : 0.0f;
    x = warp_sum(x);
    __syncthreads();
    return x;
}

static __device__ __forceinline__ float block_max(float x, float *scratch) {
    x = warp_max(x);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (blockDim.x + 31) >> 5;
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : __int_as_float(0xff800000);
    x = warp_max(x);
    __syncthreads();
    return x;
}
