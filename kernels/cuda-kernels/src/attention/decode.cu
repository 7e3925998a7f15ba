// What: attention of a few query rows per sequence over a long cache, split over blocks; decode_merge.cu adds the splits up.
// Source: Flash-Decoding (Dao, Haziza, Massa, Sizov 2023); the merge is FlashAttention's online softmax, section 3.1.
// Shapes: q [sequences][q_rows] rows of [heads][dim] f32; K, V as in cache.cuh; lengths [sequences]; out like q.
//   partial [sequences][q_rows·heads][splits][dim], states the same with (m, l) in place of dim.
// Method: 1. a block takes splits of one sequence in turn, one kv head, and up to ROWS of the q_rows·heads/kv_heads rows that read it,
//   so keys and values are read once for all of them. 2. A token's row lies in DIM/8 lanes, 8 elements each; READS tokens per lane
//   are read before any is used. 3. Scores, online softmax, P·V in f32, each group of lanes for its own tokens. 4. Groups, then
//   warps, then splits are merged: M = max m, O = Σ 2^(m−M) O, l alike; the result is O / l.
// Exactness: f32 throughout; order fixed by lengths and splits, so a second run gives the same bits.
// Cost: 4·rows·length·dim FLOPs; 2·length·dim elements of K and V per kv head.
// Not handled: dim above DIM or not a multiple of 8; more splits than the grid has.
#include "cache.cuh"
#include "warp.cuh"

#define LANES (DIM / 8)     // that share a token
#define TOKENS (32 / LANES) // per warp and read
#define READS (ROWS > 1 ? 2 : 4)
#define WARPS 4

extern "C" __global__ void __launch_bounds__(WARPS * 32)
attention_decode(const float *q, const void *k, const void *v, const int *lengths, const int *slots, const int *pages, float *out,
                 float *partial, float2 *states, int q_rows, int heads, int kv_heads, int dim, int q_stride, int out_stride,
                 int page_tokens, int max_pages, int window, int splits, float scale, float softcap) {
    __shared__ float merged[WARPS][ROWS][DIM];
    __shared__ float2 merged_state[WARPS][ROWS];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int sequence = blockIdx.x;
    const int group = heads / kv_heads, all_rows = group * q_rows, chunks = (all_rows + ROWS - 1) / ROWS;
    const int kv_head = blockIdx.y / chunks, first_row = blockIdx.y % chunks * ROWS, rows = min(ROWS, all_rows - first_row);
    const int length = lengths[sequence];
    const Cache cache{pages, slots ? slots[sequence] : sequence, kv_heads, kv_head, page_tokens, max_pages, dim};

    // 2. this lane's eight dims of every row's query; lanes beyond the head's dims hold zeros
    const int at = lane % LANES * 8, part = lane / LANES;
    const bool has_dims = at < dim;
    float query[ROWS][8];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int row = first_row + min(r, rows - 1);
        const size_t from = (size_t)(sequence * q_rows + row / group) * q_stride + (kv_head * group + row % group) * dim + at;
        if (has_dims && ((size_t)(q + from) & 15) == 0) {
            Eight<Single> eight;
            eight.load(q, from);
            eight.unpack(query[r]);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) query[r][i] = has_dims ? q[from + i] : 0.0f;
        }
    }

    // a sequence without tokens has no split, and its zeros are written all the same
    const int count = max(1, Split(length, q_rows, window, 0, splits).count);
    for (int split = blockIdx.z; split < count; split += gridDim.z) {
        const Split mine(length, q_rows, window, split, splits);
        float sum[ROWS][8] = {}, row_max[ROWS], row_sum[ROWS] = {};
#pragma unroll
        for (int r = 0; r < ROWS; r++) row_max[r] = NEGATIVE_INFINITY;

        // 3.
        for (int base = mine.begin + warp * TOKENS * READS; base < mine.end; base += WARPS * TOKENS * READS) {
            Eight<ELEMENT> keys[READS], values[READS];
            bool valid[READS];
#pragma unroll
            for (int u = 0; u < READS; u++) {
                const int token = base + u * TOKENS + part;
                valid[u] = token < mine.end && has_dims;
                // a lane without work reads the first token again: its weight below is 0
                const size_t row = cache.row(token < mine.end ? token : mine.begin) + (has_dims ? at : 0);
                keys[u].load(k, row), values[u].load(v, row);
            }
            float p[ROWS][READS];
#pragma unroll
            for (int u = 0; u < READS; u++) {
                float key[8];
                keys[u].unpack(key);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    if (r >= rows) break;
                    float dot = 0.0f;
#pragma unroll
                    for (int i = 0; i < 8; i++) dot = fmaf(query[r][i], key[i], dot);
#pragma unroll
                    for (int step = LANES / 2; step > 0; step >>= 1) dot += __shfl_xor_sync(FULL_WARP, dot, step);
                    p[r][u] = dot;
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (r >= rows) break;
                const int end = length - q_rows + (first_row + r) / group + 1, begin = window > 0 ? end - window : 0;
                float largest = row_max[r];
#pragma unroll
                for (int u = 0; u < READS; u++) {
                    const int token = base + u * TOKENS + part;
                    const bool seen = token < mine.end && token < end && token >= begin;
                    p[r][u] = seen ? exponent_of(p[r][u], scale, softcap) : NEGATIVE_INFINITY;
                    largest = fmaxf(largest, p[r][u]);
                }
                const float shift = largest == NEGATIVE_INFINITY ? 0.0f : largest, correction = exp2_fast(row_max[r] - shift);
                row_max[r] = largest, row_sum[r] *= correction;
#pragma unroll
                for (int u = 0; u < READS; u++) p[r][u] = exp2_fast(p[r][u] - shift), row_sum[r] += p[r][u];
#pragma unroll
                for (int i = 0; i < 8; i++) sum[r][i] *= correction;
            }
#pragma unroll
            for (int u = 0; u < READS; u++) {
                float value[8];
                values[u].unpack(value);
                if (!valid[u]) continue;
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    if (r >= rows) break;
#pragma unroll
                    for (int i = 0; i < 8; i++) sum[r][i] = fmaf(p[r][u], value[i], sum[r][i]);
                }
            }
        }

        // 4. groups of a warp, then warps
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= rows) break;
#pragma unroll
            for (int step = LANES; step < 32; step <<= 1) {
                const float other_max = __shfl_xor_sync(FULL_WARP, row_max[r], step);
                const float other_sum = __shfl_xor_sync(FULL_WARP, row_sum[r], step);
                const float largest = fmaxf(row_max[r], other_max), shift = largest == NEGATIVE_INFINITY ? 0.0f : largest;
                const float mine_by = exp2_fast(row_max[r] - shift), other_by = exp2_fast(other_max - shift);
                row_max[r] = largest, row_sum[r] = row_sum[r] * mine_by + other_sum * other_by;
#pragma unroll
                for (int i = 0; i < 8; i++) sum[r][i] = sum[r][i] * mine_by + __shfl_xor_sync(FULL_WARP, sum[r][i], step) * other_by;
            }
            if (part == 0) {
#pragma unroll
                for (int i = 0; i < 8; i++) merged[warp][r][at + i] = sum[r][i];
            }
            if (lane == 0) merged_state[warp][r] = make_float2(row_max[r], row_sum[r]);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < rows * dim; i += WARPS * 32) {
            const int r = i / dim, d = i % dim, row = first_row + r;
            float largest = NEGATIVE_INFINITY, total = 0.0f, value = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; w++) largest = fmaxf(largest, merged_state[w][r].x);
            const float shift = largest == NEGATIVE_INFINITY ? 0.0f : largest;
#pragma unroll
            for (int w = 0; w < WARPS; w++) {
                const float by = exp2_fast(merged_state[w][r].x - shift);
                total = fmaf(by, merged_state[w][r].y, total), value = fmaf(by, merged[w][r][d], value);
            }
            const int q_row = sequence * q_rows + row / group, head = kv_head * group + row % group;
            if (splits == 1) {
                out[(size_t)q_row * out_stride + head * dim + d] = total > 0.0f ? __fdividef(value, total) : 0.0f;
            } else {
                const size_t place = ((size_t)q_row * heads + head) * splits + split;
                partial[place * dim + d] = value;
                if (d == 0) states[place] = make_float2(largest, total);
            }
        }
        __syncthreads(); // the next split's results go where these are still read
    }
}
