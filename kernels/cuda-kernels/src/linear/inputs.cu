// What: f32 inputs in the order and the numbers that tile_gemv and tile_gemm take.
// Source: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) §2.1 for the codes; the order is ours (tile.cuh).
// Shapes: x [rows][k] f32 -> packed [rows / 8][units][loads][32] uint4; gather [64 units]: the column at a stored position, -1: zero.
// Method: pack_inputs: one thread rounds 8 values to 16 bit. group_sums: one warp sums the rounded inputs of a group.
//   quantise_rows: one block per row: absmax, then codes round-half-even(x * 127/absmax).
// Exactness: roundings to nearest even; codes and scales have the bits of the scalar statement. A row holding NaN or an infinity has
//   scale NaN, one below 1e-36 scale 0. Rows and columns beyond the ends are zeros.
// Cost: 4 bytes read, 2 or 1 written per value. Not handled: values beyond f16's range become infinities.
#include "numbers.cuh"
#include "warp.cuh"

#ifndef NUMBER
#define NUMBER Half
#endif

static __device__ __forceinline__ float input(const float *x, const int *gather, int row, int column, int rows, int k, int units) {
    if (row >= rows || column >= 64 * units) return 0.0f;
    const int from = gather ? gather[column] : column;
    return from >= 0 && from < k ? x[(size_t)row * k + from] : 0.0f;
}

extern "C" __global__ void __launch_bounds__(256)
pack_inputs(const float *x, const int *gather, uint4 *packed, int rows, int k, int units) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x;
    const size_t loads = (size_t)((rows + 7) / 8) * units * 64;
    if (at >= loads) return;
    const int lane = at & 31, row = (int)(at / ((size_t)units * 64)) * 8 + (lane >> 2);
    const int column = (int)(at / 32 % (units * 2)) * 32 + 2 * (lane & 3);
    u32 pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        pair[i] = NUMBER::pack(input(x, gather, row, column + 8 * i, rows, k, units), input(x, gather, row, column + 8 * i + 1, rows, k, units));
    packed[at] = make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

// sums [group][rows, padded to 8]; `group` is a power of two of at least 32 columns.
extern "C" __global__ void __launch_bounds__(256)
group_sums(const float *x, const int *gather, float *sums, int rows, int k, int units, int group) {
    const int lane = threadIdx.x & 31, padded = (rows + 7) / 8 * 8;
    const size_t at = (size_t)blockIdx.x * 8 + (threadIdx.x >> 5);
    if (at >= (size_t)padded * (64 * units / group)) return;
    const int row = (int)(at % padded), first = (int)(at / padded) * group;
    float sum = 0.0f;
    for (int column = first + lane; column < first + group; column += 32)
        sum += NUMBER::to_float(NUMBER::from_float(input(x, gather, row, column, rows, k, units)));
    sum = warp_sum(sum);
    if (lane == 0) sums[at] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
quantise_rows(const float *x, u32 *packed, float *scales, int rows, int k, int units) {
    __shared__ float scratch[32];
    const int row = blockIdx.x, lane = (row & 7) * 4;
    const float *values = x + (size_t)row * k;
    float largest = 0.0f, poison = 0.0f;
    if (row < rows)
        for (int i = threadIdx.x; i < k; i += 256) {
            largest = fmaxf(largest, fabsf(values[i]));
            poison += values[i] * 0.0f;
        }
    largest = block_max(largest, scratch);
    poison = block_sum(poison, scratch);
    const bool is_nan = poison != poison, is_zero = is_nan || largest < 1e-36f;
    const float inverse = is_zero ? 0.0f : __fdiv_rn(127.0f, largest);
    if (threadIdx.x == 0 && row < rows) scales[row] = is_nan ? __int_as_float(0x7fc00000) : is_zero ? 0.0f : __fdiv_rn(largest, 127.0f);
    u32 *to = packed + (size_t)(row >> 3) * units * 128;
    for (int quad = threadIdx.x; quad < 16 * units; quad += 256) {
        u32 codes = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int column = 4 * quad + i;
            const float value = row < rows && column < k && !is_zero ? values[column] : 0.0f;
            codes |= ((u32)__float2int_rn(__fmul_rn(value, inverse)) & 255u) << (8 * i);
        }
        // quad = 16 unit + 8 step + 4 half + t
        to[(quad >> 4) * 128 + (lane + (quad & 3)) * 4 + ((quad >> 2) & 3)] = codes;
    }
}

// y [count] = partial [8][count], added in order.
extern "C" __global__ void __launch_bounds__(256) add_slices(const float *partial, float *y, u64 count) {
    const size_t at = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (at >= count) return;
    float total = 0.0f;
#pragma unroll
    for (int slice = 0; slice < 8; slice++) total += partial[slice * count + at];
    y[at] = total;
}
