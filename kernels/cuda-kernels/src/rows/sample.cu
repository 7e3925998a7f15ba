// Tokens from logits: the most likely one, and probabilities at a temperature. One block per row.
#include "numbers.cuh"
#include "warp.cuh"

// The smallest index of the largest value, as the CPU's greedy decoder takes it.
extern "C" __global__ void argmax(const float *logits, int cols, u32 *tokens) {
    __shared__ float best_of[32];
    __shared__ int index_of[32];
    const float *row = logits + (size_t)blockIdx.x * cols;
    float best = NEGATIVE_INFINITY;
    int index = 0x7fffffff;
    for (int col = threadIdx.x; col < cols; col += blockDim.x)
        if (row[col] > best || index == 0x7fffffff) best = row[col], index = col;
    for (int step = 16; step > 0; step >>= 1) {
        const float other = __shfl_xor_sync(FULL_WARP, best, step);
        const int at = __shfl_xor_sync(FULL_WARP, index, step);
        if (other > best || (other == best && at < index)) best = other, index = at;
    }
    if ((threadIdx.x & 31) == 0) best_of[threadIdx.x >> 5] = best, index_of[threadIdx.x >> 5] = index;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < (blockDim.x + 31) / 32; warp++)
            if (best_of[warp] > best || (best_of[warp] == best && index_of[warp] < index))
                best = best_of[warp], index = index_of[warp];
        tokens[blockIdx.x] = index;
    }
}

// y = softmax(x / temperature)
extern "C" __global__ void probabilities(const float *logits, float temperature, int cols, float *y) {
    __shared__ float scratch[32];
    const float *row = logits + (size_t)blockIdx.x * cols;
    float *to = y + (size_t)blockIdx.x * cols;
    float most = NEGATIVE_INFINITY, sum = 0.0f;
    for (int col = threadIdx.x; col < cols; col += blockDim.x) most = fmaxf(most, row[col]);
    most = block_max(most, scratch);
    for (int col = threadIdx.x; col < cols; col += blockDim.x) {
        const float weight = expf((row[col] - most) / temperature);
        to[col] = weight, sum += weight;
    }
    sum = block_sum(sum, scratch);
    for (int col = threadIdx.x; col < cols; col += blockDim.x) to[col] /= sum;
}
