// What: adds up the splits of decode.cu, or with PARTS the parts of packed.cu: one warp per row and head.
// Source: Flash-Decoding (Dao, Haziza, Massa, Sizov 2023); FlashAttention, section 3.1.
// Shapes: partial [rows·heads][splits][dim], states the same with (m, l) in place of dim; out rows of [heads][dim].
// Method: M = max m over the splits; out = Σ 2^(m−M) O / Σ 2^(m−M) l, 0 where nothing was seen.
// Exactness: f32; splits are added in order.
// Cost: one read of the partial results.
// Not handled: nothing; splits that the sequence does not have are not looked at, whatever an earlier launch left there.
#include "cache.cuh"
#include "parts.cuh"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(128)
attention_decode_merge(const float *partial, const float2 *states, const int *lengths, float *out, int all_rows, int q_rows, int plus,
                       int heads, int dim, int splits, int out_stride, int window) {
    const int lane = threadIdx.x & 31, row = blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= all_rows * heads) return;
    const int q_row = row / heads, head = row % heads;
#if PARTS
    const Parts parts(lengths[q_row / q_rows] + plus - (q_rows - 1 - q_row % q_rows), window, splits);
    const int first = parts.first % splits, count = parts.count;
#else
    const int first = 0, count = Split(lengths[q_row / q_rows] + plus, q_rows, window, 0, splits).count;
#endif
    const auto at = [&](int s) { return first + s < splits ? first + s : first + s - splits; };
    const float2 *state = states + (size_t)row * splits;
    float largest = NEGATIVE_INFINITY;
    for (int s = lane; s < count; s += 32) largest = fmaxf(largest, state[at(s)].x);
    largest = warp_max(largest);
    const float shift = largest == NEGATIVE_INFINITY ? 0.0f : largest;
    float total = 0.0f;
    for (int s = lane; s < count; s += 32) total = fmaf(exp2_fast(state[at(s)].x - shift), state[at(s)].y, total);
    total = warp_sum(total);
    for (int d = lane; d < dim; d += 32) {
        float value = 0.0f;
        for (int s = 0; s < count; s++) value = fmaf(exp2_fast(state[at(s)].x - shift), partial[((size_t)row * splits + at(s)) * dim + d], value);
        out[(size_t)q_row * out_stride + head * dim + d] = total > 0.0f ? __fdividef(value, total) : 0.0f;
    }
}
