// Rows of an embedding table, widened and scaled; and learned positions added. One block per token.
#include "lanes.cuh"

extern "C" __global__ void embed_rows(const STORED::stored *table, const u32 *tokens, float factor, int cols, float *y) {
    const STORED::stored *from = table + (size_t)tokens[blockIdx.x] * cols;
    float *to = y + (size_t)blockIdx.x * cols;
    for (int col = threadIdx.x; col < cols; col += blockDim.x) to[col] = STORED::widen(from[col]) * factor;
}

extern "C" __global__ void add_positions(const float *table, const u32 *positions, int offset, int cols, float *x) {
    const float *from = table + ((size_t)positions[blockIdx.x] + offset) * cols;
    float *to = x + (size_t)blockIdx.x * cols;
    for (int col = threadIdx.x; col < cols; col += blockDim.x) to[col] += from[col];
}
