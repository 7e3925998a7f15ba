// What the rungs of the forward ladder have in common: who sees whom, the online softmax on fragments, the last step.
//
// q and out are [batch][q_len][heads][DIM], k and v [batch][kv_len][kv_heads][DIM], 16 bits each; lse (may be null) is
// [batch][heads][q_len], the natural logarithm of the sum of exponentials, -inf for a row that sees nothing (its output is 0).
// Rows and keys are aligned at their ends: a causal row sees the keys up to row + kv_len - q_len, of those the last `window` if
// that is above 0.
//
// Fragments are flat arrays, four values to a tile of 16 x 8: value 4n + i of a lane is row lane/4 + 8(i/2), column
// 8n + 2(lane%4) + i%2. So are the results of mma.sync and those of wgmma.
#pragma once
#include "mma.cuh"
#include "warp.cuh"

#define LN_2 0.6931471805599453f

struct Problem {
    int q_len, kv_len, heads, kv_heads, causal, window, head, batch;
    // Keys [begin, end) that a row sees; empty where end <= begin.
    __device__ __forceinline__ int end(int row) const { return causal ? min(kv_len, row + 1 + kv_len - q_len) : kv_len; }
    __device__ __forceinline__ int begin(int row) const { return window > 0 ? max(0, row + 1 + kv_len - q_len - window) : 0; }
    // Element where a row of q or out, of k or v starts.
    __device__ __forceinline__ size_t q_row(int row) const {
        return ((size_t)(batch * q_len + row) * heads + head) * DIM;
    }
    __device__ __forceinline__ size_t kv_row(int token) const {
        return ((size_t)(batch * kv_len + token) * kv_heads + head / (heads / kv_heads)) * DIM;
    }
    __device__ __forceinline__ size_t lse_row(int row) const { return (size_t)(batch * heads + head) * q_len + row; }
};

// Tiles [first, last] of `columns` keys that rows [row, row + rows) see; none where last < first.
struct Tiles {
    int first, last;
    __device__ __forceinline__ Tiles(const Problem &problem, int row, int rows, int columns) {
        const int end = problem.end(min(row + rows, problem.q_len) - 1);
        first = problem.begin(row) / columns, last = end > 0 ? (end - 1) / columns : -1;
    }
};

// Whether some of rows [row, row + rows) do not see some of keys [column, column + columns).
static __device__ __forceinline__ bool needs_mask(const Problem &problem, int row, int rows, int column, int columns) {
    return column + columns > problem.end(row) || column < problem.begin(min(row + rows, problem.q_len) - 1);
}

// The four values of tile n as the tensor cores take them.
template <int count> static __device__ __forceinline__ float (&tile(float (&values)[count], int n))[4] {
    return *(float(*)[4])&values[4 * n];
}

// Makes -inf of what a row does not see. `row` and `column` are of this lane's first value.
template <int count> static __device__ __forceinline__ void mask_scores(float (&scores)[count], const Problem &problem, int row, int column) {
    const int end[2] = {problem.end(row), problem.end(row + 8)}, begin[2] = {problem.begin(row), problem.begin(row + 8)};
#pragma unroll
    for (int i = 0; i < count; i++) {
        const int key = column + 8 * (i / 4) + i % 2, half = i / 2 % 2;
        if (key >= end[half] || key < begin[half]) scores[i] = NEGATIVE_INFINITY;
    }
}

// A lane's two rows: largest raw score so far, and this lane's part of the sum of 2^((score - max)·scale).
struct RowState {
    float largest[2] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY}, sum[2] = {0.0f, 0.0f};
};

// Turns scores into weights and gives the factor by which earlier results shrink. With scale = softmax scale · log2 e,
// 2^(s·scale - m·scale) is one multiplication-addition and one ex2.
template <int count>
static __device__ __forceinline__ void softmax_step(float (&scores)[count], RowState &state, float (&shrink)[2], float scale) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = state.largest[half];
#pragma unroll
        for (int n = 0; n < count / 4; n++) largest = fmaxf(largest, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, 2));
        // a row that has seen nothing yet: (-inf) - (-inf) would be no number
        const float shift = largest == NEGATIVE_INFINITY ? 0.0f : largest * scale;
        shrink[half] = exp2_fast(state.largest[half] * scale - shift);
        state.largest[half] = largest;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < count / 4; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float &score = scores[4 * n + 2 * half + i];
                score = exp2_fast(fmaf(score, scale, -shift));
                sum += score;
            }
        state.sum[half] = state.sum[half] * shrink[half] + sum;
    }
}

template <int count> static __device__ __forceinline__ void shrink_by(float (&values)[count], const float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < count; i++) values[i] *= shrink[i / 2 % 2];
}

// Columns 16·step … 16·step + 15 of the weights as a left operand: the fragment is one already.
template <class Number, int count> static __device__ __forceinline__ void left_operand(u32 (&a)[4], const float (&weights)[count], int step) {
#pragma unroll
    for (int w = 0; w < 4; w++) a[w] = Number::pack(weights[8 * step + 2 * w], weights[8 * step + 2 * w + 1]);
}

// Divides by the sums, which the four lanes of a row add up only now, and writes rows `row` and `row + 8` of this lane.
template <class Number, int count>
static __device__ __forceinline__ void write_rows(const float (&values)[count], RowState &state, const Problem &problem, unsigned short *out,
                                                  float *lse, int row, float scale) {
    const int t = threadIdx.x & 3;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = state.sum[half];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        const int r = row + 8 * half;
        if (r >= problem.q_len) continue;
        const float by = sum > 0.0f ? __fdividef(1.0f, sum) : 0.0f;
        u32 *to = (u32 *)(out + problem.q_row(r));
#pragma unroll
        for (int n = 0; n < count / 4; n++) to[4 * n + t] = Number::pack(values[4 * n + 2 * half] * by, values[4 * n + 2 * half + 1] * by);
        if (lse && t == 0)
            lse[problem.lse_row(r)] = sum > 0.0f ? (state.largest[half] * scale + __log2f(sum)) * LN_2 : NEGATIVE_INFINITY;
    }
}
