// What: f32 rows as int8 codes with one scale each, in the order that tile_gemv and tile_gemm take or (PLAIN) row by row.
// Source: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) §2.1: vector-wise absmax.
// Shapes: x [rows][k] f32 -> packed [rows / 8][units][32] uint4 or [rows][64 units] bytes, scales [rows]. Block: 1024 threads, one row (padding rows included).
// Method: 1. absmax of the row. 2. codes = round-half-even(x * (127 / absmax)), scale = absmax / 127.
// Exactness: the bits of the scalar statement. A row holding NaN or an infinity has scale NaN, one below 1e-36 scale 0.
// Cost: 8 bytes read, 1 written per value. Not handled: nothing.
#include "numbers.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(1024)
quantise_rows(const float *x, u32 *packed, float *scales, int rows, int k, int units) {
    __shared__ float scratch[32];
    const int row = blockIdx.x, lane = (row & 7) * 4;
    const float *values = x + (size_t)row * k;
    float largest = 0.0f, poison = 0.0f;
    if (row < rows)
        for (int i = threadIdx.x; i < k; i += 1024) {
            largest = fmaxf(largest, fabsf(values[i]));
            poison += values[i] * 0.0f;
        }
    largest = block_max(largest, scratch);
    poison = block_sum(poison, scratch);
    const bool is_nan = poison != poison, is_zero = is_nan || largest < 1e-36f;
    const float inverse = is_zero ? 0.0f : __fdiv_rn(127.0f, largest);
    if (threadIdx.x == 0 && row < rows) scales[row] = is_nan ? __int_as_float(0x7fc00000) : is_zero ? 0.0f : __fdiv_rn(largest, 127.0f);
    u32 *to = packed + (size_t)(row >> 3) * units * 128;
    for (int quad = threadIdx.x; quad < 16 * units; quad += 1024) {
        u32 codes = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int column = 4 * quad + i;
            const float value = row < rows && column < k && !is_zero ? values[column] : 0.0f;
            codes |= ((u32)__float2int_rn(__fmul_rn(value, inverse)) & 255u) << (8 * i);
        }
#if PLAIN
        if (row < rows && 4 * quad < k) packed[((size_t)row * k >> 2) + quad] = codes;
        continue;
#endif
        // quad = 16 unit + 8 step + 4 half + t
        to[(quad >> 4) * 128 + (lane + (quad & 3)) * 4 + ((quad >> 2) & 3)] = codes;
    }
}
