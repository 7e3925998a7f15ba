// What: attention of f32 rows over a cache of 16-bit keys and values on tensor cores, nearly as exact as f32: decoding, and prompts.
// Source: FlashAttention-2 (Dao 2023); Flash-Decoding (2023); grouped heads as rows of a tile as in FlashAttention-3 (Shah et al. 2024);
//   an f32 factor as the sum of two 16-bit ones (Ootomo and Yokota 2022).
// Shapes: q, out rows of [heads][dim] f32; K, V as in cache.cuh; ends, slots of rows or of sequences; partial, states as decode.cu;
//   grid (sequences · ceil(q_rows·group / ROWS), kv_heads, up to splits): whatever the grid, the same parts.
// Method: a tile's rows are (token, head of the group): whoever reads a kv head shares its tiles. For each run of one slot, each part of
//   its keys whose turn is this block's (parts.cuh), 64 keys at a time, the next on their way meanwhile: 1. Q is high + low, both of 16 bits:
//   S = high·Kᵀ + low·Kᵀ. 2. Online softmax. 3. P likewise: O += high·V + low·V. A warp owns 16 rows; or, when the tile has 16 in all,
//   a quarter of the keys in 1. and of the dims in 3., and scores change hands in shared memory. Every sum has one order in both.
// Exactness: f32 sums; factors to 2⁻¹⁶ (bf16) or 2⁻²² (f16) of themselves; a row's bits depend on its own keys and on splits alone.
//   Queries beyond f16's range need a bf16 or f32 cache.
// Cost: 8·dim FLOPs of tensor cores per row and key; K and V are read once per ROWS rows.
// Not handled: dim above DIM or not a multiple of 8.
#include "cache.cuh"
#include "parts.cuh"
#include "swizzled.cuh"

#define KEYS 64
#define FLAT (ROWS == 16)
#define THREADS (FLAT ? 128 : 2 * ROWS)
#define STRIDE (THREADS / CHUNKS)
#define TILE_BYTES (KEYS * DIM * 2)
#define HEAD_COLUMNS (FLAT ? DIM / 4 : DIM) // of the result, of a warp
#define MY_KEYS (FLAT ? KEYS / 4 : KEYS)    // of the scores, of a warp
#define PITCH 72                            // floats of a row of scores that change hands: no two quads of a half warp meet in a bank


// What rounding to 16 bits leaves over.
static __device__ __forceinline__ float left_over(float x) { return x - NUMBER::to_float(NUMBER::from_float(x)); }

// `count` rows of queries, row p being head p % group of token p / group, as high and low tiles.
static __device__ __forceinline__ void load_queries(char *high, char *low, const float *q, int first, int count, int group, int stride, int dim) {
    for (int i = threadIdx.x; i < ROWS * 2 * CHUNKS; i += THREADS) {
        const int r = i / (2 * CHUNKS), half = i % (2 * CHUNKS), row = first + r, place = swizzled(r, half / 2) + half % 2 * 8;
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (r < count && half * 4 < dim) {
            const float *from = q + (size_t)(row / group) * stride + row % group * dim + half * 4;
            x = ((size_t)from & 15) == 0 ? *(const float4 *)from : make_float4(from[0], from[1], from[2], from[3]);
        }
        *(uint2 *)(high + place) = make_uint2(NUMBER::pack(x.x, x.y), NUMBER::pack(x.z, x.w));
        *(uint2 *)(low + place) = make_uint2(NUMBER::pack(left_over(x.x), left_over(x.y)), NUMBER::pack(left_over(x.z), left_over(x.w)));
    }
}

// Keys and values [column, end) of a tile, zeros beyond. A thread copies one chunk of every STRIDE-th row, whose place in the swizzle is
// the same in all of them; without pages they lie at equal distances.
static __device__ __forceinline__ void copy_tile(u32 keys, u32 values, const void *k, const void *v, const Cache &cache, int column, int end) {
    const u32 row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, to = swizzled(row, chunk);
    const bool has_dims = chunk * 8 < cache.dim;
    const size_t first = cache.row(column) + (has_dims ? chunk * 8 : 0), step = (size_t)STRIDE * cache.dim;
    size_t from = first + row * cache.dim;
#pragma unroll
    for (int j = 0; j < KEYS / STRIDE; j++, from += step) {
        const int token = column + (int)row + j * STRIDE;
        const bool there = token < end && has_dims;
        if (cache.pages && there) from = cache.row(token) + chunk * 8;
        const size_t at = there ? from : first;
        copy_async_16(keys + to + j * THREADS * 16, (const unsigned short *)k + at, there);
        copy_async_16(values + to + j * THREADS * 16, (const unsigned short *)v + at, there);
    }
}

// scores += (high + low)·(keys `first` …)ᵀ of dims 16·step …: a fragment of keys is loaded once for both.
template <int count>
static __device__ __forceinline__ void multiply_keys_twice(float (&scores)[count], const u32 (&high)[4], const u32 (&low)[4], u32 keys, int first, int step) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int n = 0; n < count / 4; n += 2) {
        u32 b[4];
        ldmatrix_x4(b, keys + swizzled(first + 8 * n + (lane & 7) + 8 * (lane >> 4), 2 * step + (lane >> 3 & 1)));
        mma_16x8x16<NUMBER>(tile(scores, n), high, b[0], b[1]);
        mma_16x8x16<NUMBER>(tile(scores, n + 1), high, b[2], b[3]);
        mma_16x8x16<NUMBER>(tile(scores, n), low, b[0], b[1]);
        mma_16x8x16<NUMBER>(tile(scores, n + 1), low, b[2], b[3]);
    }
}

// result += weights·(values' chunks `first` …), weights as high + low.
template <int count>
static __device__ __forceinline__ void multiply_values_twice(float (&result)[count], float (&weights)[KEYS / 2], u32 values, int first) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        u32 high[4], low[4];
        left_operand<NUMBER>(high, weights, step);
#pragma unroll
        for (int i = 8 * step; i < 8 * step + 8; i++) weights[i] = left_over(weights[i]);
        left_operand<NUMBER>(low, weights, step);
#pragma unroll
        for (int n = 0; n < count / 4; n += 2) {
            u32 b[4];
            ldmatrix_x4_transposed(b, values + swizzled(16 * step + (lane & 15), first + n + (lane >> 4)));
            mma_16x8x16<NUMBER>(tile(result, n), high, b[0], b[1]);
            mma_16x8x16<NUMBER>(tile(result, n + 1), high, b[2], b[3]);
            mma_16x8x16<NUMBER>(tile(result, n), low, b[0], b[1]);
            mma_16x8x16<NUMBER>(tile(result, n + 1), low, b[2], b[3]);
        }
    }
}

// The keys that this lane's two rows see of a run, and what that means for the warp.
struct Seen {
    int begin[2], end[2], warp_begin, warp_end, all_begin, all_end;
    __device__ __forceinline__ void share() {
        warp_begin = min(begin[0], begin[1]), all_begin = max(begin[0], begin[1]);
        warp_end = max(end[0], end[1]), all_end = min(end[0], end[1]);
#pragma unroll
        for (int step = 4; step < 32; step <<= 1) {
            warp_begin = min(warp_begin, __shfl_xor_sync(FULL_WARP, warp_begin, step));
            all_begin = max(all_begin, __shfl_xor_sync(FULL_WARP, all_begin, step));
            warp_end = max(warp_end, __shfl_xor_sync(FULL_WARP, warp_end, step));
            all_end = min(all_end, __shfl_xor_sync(FULL_WARP, all_end, step));
        }
    }
    __device__ __forceinline__ bool needs_mask(int column, int columns) const { return column + columns > all_end || column < all_begin; }
    // `column` is of this lane's first value.
    template <int count> __device__ __forceinline__ void mask(float (&scores)[count], int column) const {
#pragma unroll
        for (int i = 0; i < count; i++) {
            const int key = column + 8 * (i / 4) + i % 2, half = i / 2 % 2;
            if (key >= end[half] || key < begin[half]) scores[i] = NEGATIVE_INFINITY;
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, FLAT ? 3 : 1)
attention_packed(const float *q, const void *k, const void *v, const int *ends, const int *slots, const int *pages, float *out, float *partial,
                 float2 *states, int q_rows, int per, int plus, int heads, int kv_heads, int dim, int q_stride, int out_stride, int page_tokens,
                 int max_pages, int window, int splits, float scale, float softcap) {
    extern __shared__ __align__(128) char raw[];
    __shared__ int row_slot[ROWS], row_end[ROWS], row_part[ROWS];
    const u32 k_tiles = shared_address(raw), v_tiles = k_tiles + 2 * TILE_BYTES;
    // The high halves of queries become registers. Their place is taken by scores (flat tiles), or by keys and values (tall ones).
    char *q_high = raw + (FLAT ? 4 * TILE_BYTES : 0), *q_low = raw + 4 * TILE_BYTES + (FLAT ? 16 * PITCH * 4 : 0);
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4, warp_row = FLAT ? 0 : 16 * warp;
    const int group = heads / kv_heads, kv_head = blockIdx.y, turns = gridDim.z;
    const int tiles = (q_rows * group + ROWS - 1) / ROWS, sequence = blockIdx.x / tiles;
    const int first = (tiles - 1 - (int)blockIdx.x % tiles) * ROWS, count = min(ROWS, q_rows * group - first); // the longest first
    const int token = first / group, tokens = (first + count - 1) / group - token + 1;
    const size_t top = (size_t)sequence * q_rows; // row of the sequence's first token
    for (int i = threadIdx.x; i < tokens; i += THREADS) {
        const int row = (int)top + token + i, from = row / per;
        const int end = max(0, ends[from] + plus - (per - 1 - row % per));
        row_slot[i] = slots ? slots[from] : from, row_end[i] = end, row_part[i] = Parts(end, window, splits).size;
    }
    load_queries(q_high, q_low, q + top * q_stride + kv_head * group * dim, first, count, group, q_stride, dim);
    __syncthreads();
    u32 high[DIM / 16][4];
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) load_left(high[step], shared_address(q_high), warp_row, step);
    const float factor = softcap > 0.0f ? 1.0f : scale * LOG2_E;
    const int my_row[2] = {first + warp_row + g, first + warp_row + g + 8};

    for (int at = 0, after; at < tokens; at = after) {
        // a run: tokens of one slot whose keys are cut alike
        const int size = row_part[at], slot = row_slot[at];
        int least = row_end[at], most = least;
        for (after = at + 1; after < tokens && row_slot[after] == slot && row_part[after] == size; after++)
            least = min(least, row_end[after]), most = max(most, row_end[after]);
        const int run_begin = window > 0 ? max(0, least - window) : 0;
        const Cache cache{pages, slot, kv_heads, kv_head, page_tokens, max_pages, dim};
        Seen seen;
        bool mine[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int i = my_row[half] / group - token;
            mine[half] = warp_row + g + 8 * half < count && i >= at && i < after;
            seen.end[half] = mine[half] ? row_end[i] : 0;
            seen.begin[half] = mine[half] && window > 0 ? max(0, row_end[i] - window) : 0;
        }
        seen.share();

        const int first_part = run_begin / size, last_part = splits == 1 ? 0 : (most + size - 1) / size - 1;
        for (int part = first_part + ((int)blockIdx.z + turns - first_part % turns) % turns; part <= last_part; part += turns) {
            const int begin = max(run_begin, part * size) / KEYS * KEYS, end = splits == 1 ? most : min(most, (part + 1) * size);
            float result[HEAD_COLUMNS / 2] = {}, shrink[2];
            RowState state;
            __syncthreads(); // whoever still reads the tiles of the part before, or queries
            if (begin < end) copy_tile(k_tiles, v_tiles, k, v, cache, begin, end);
            copy_async_commit();
            int place = 0;
            for (int column = begin; column < end; column += KEYS, place ^= TILE_BYTES) {
                copy_async_wait<0>();
                __syncthreads();
                if (column + KEYS < end) copy_tile(k_tiles + (place ^ TILE_BYTES), v_tiles + (place ^ TILE_BYTES), k, v, cache, column + KEYS, end);
                copy_async_commit();
                // a tile that none of its rows sees would change nothing
                if (!FLAT && (column >= seen.warp_end || column + KEYS <= seen.warp_begin)) continue;
                const int my_keys = FLAT ? 16 * warp : 0;
                float scores[MY_KEYS / 2] = {}; // 1.
#pragma unroll
                for (int step = 0; step < DIM / 16; step++) {
                    u32 low[4];
                    load_left(low, shared_address(q_low), warp_row, step);
                    multiply_keys_twice(scores, high[step], low, k_tiles + place, my_keys, step);
                }
                if (softcap > 0.0f) {
#pragma unroll
                    for (int i = 0; i < MY_KEYS / 2; i++) scores[i] = exponent_of(scores[i], scale, softcap);
                }
                if (seen.needs_mask(column + my_keys, MY_KEYS)) seen.mask(scores, column + my_keys + 2 * t);
#if FLAT
                float all[KEYS / 2], *exchange = (float *)q_high + g * PITCH + 2 * t;
#pragma unroll
                for (int i = 0; i < MY_KEYS / 2; i += 2)
                    *(float2 *)&exchange[i / 2 % 2 * 8 * PITCH + my_keys + 8 * (i / 4)] = make_float2(scores[i], scores[i + 1]);
                __syncthreads();
#pragma unroll
                for (int i = 0; i < KEYS / 2; i += 2) {
                    const float2 two = *(const float2 *)&exchange[i / 2 % 2 * 8 * PITCH + 8 * (i / 4)];
                    all[i] = two.x, all[i + 1] = two.y;
                }
#else
                float(&all)[KEYS / 2] = scores;
#endif
                softmax_step(all, state, shrink, factor); // 2.
                shrink_by(result, shrink);
                multiply_values_twice(result, all, v_tiles + place, FLAT ? warp * (DIM / 32) : 0); // 3.
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float sum = state.sum[half];
                sum += __shfl_xor_sync(FULL_WARP, sum, 1);
                sum += __shfl_xor_sync(FULL_WARP, sum, 2);
                // a row whose keys do not reach into this part has nothing to leave
                if (!mine[half] || splits > 1 && (seen.end[half] <= part * size || seen.begin[half] >= (part + 1) * size)) continue;
                const size_t row = top + my_row[half] / group;
                const int head = kv_head * group + my_row[half] % group, my_dims = FLAT ? warp * (DIM / 4) : 0;
                const size_t leave = (row * heads + head) * splits + part % splits;
                const float by = splits > 1 ? 1.0f : sum > 0.0f ? __fdividef(1.0f, sum) : 0.0f;
                float *to = splits > 1 ? partial + leave * dim : out + row * out_stride + head * dim;
                const bool pairs = ((size_t)to & 7) == 0;
#pragma unroll
                for (int n = 0; n < HEAD_COLUMNS / 8; n++) {
                    const int d = my_dims + 8 * n + 2 * t;
                    const float a = result[4 * n + 2 * half] * by, b = result[4 * n + 2 * half + 1] * by;
                    if (d < dim && pairs) *(float2 *)(to + d) = make_float2(a, b);
                    if (d < dim && !pairs) to[d] = a, to[d + 1] = b;
                }
                if (splits > 1 && t == 0 && (!FLAT || warp == 0)) states[leave] = make_float2(state.largest[half] * factor, sum);
            }
        }
    }
}
