// What: attention of many f32 rows over a cache of 16-bit keys and values, on tensor cores, nearly as exact as f32.
// Source: FlashAttention-2 (Dao 2023); an f32 factor as the sum of two 16-bit ones as in Ootomo and Yokota 2022.
// Shapes: q, out rows of [heads][dim] f32; K, V as in cache.cuh; positions, slots [rows]; grid (rows / 64, heads), 128 threads.
// Method: a warp owns 16 of 64 rows; for each run of one slot, 64 keys at a time. 1. Q is high + low, both of 16 bits:
//   S = high·Kᵀ + low·Kᵀ. 2. Online softmax on the fragment. 3. P likewise: O += high·V + low·V.
// Exactness: f32 sums; factors to 2⁻¹⁶ (bf16) or 2⁻²² (f16) of themselves. Queries beyond f16's range need a bf16 or f32 cache.
// Cost: 8·dim FLOPs of tensor cores per row and key; K and V are read once per 64 rows.
// Not handled: dim above DIM or not a multiple of 8.
#include "runs.cuh"
#include "swizzled.cuh"

#define ROWS 64
#define KEYS 64

static __device__ __forceinline__ void load_keys(char *to, const void *from, const Cache &cache, int column, int end) {
    for (int i = threadIdx.x; i < KEYS * CHUNKS; i += 128) {
        const int key = i / CHUNKS, chunk = i % CHUNKS;
        uint4 words = make_uint4(0, 0, 0, 0);
        if (column + key < end && chunk * 8 < cache.dim)
            words = *(const uint4 *)((const unsigned short *)from + cache.row(column + key) + chunk * 8);
        *(uint4 *)(to + swizzled(key, chunk)) = words;
    }
}

// What rounding to 16 bits leaves over.
static __device__ __forceinline__ float left_over(float x) { return x - NUMBER::to_float(NUMBER::from_float(x)); }

static __device__ __forceinline__ void load_queries(char *high, char *low, const float *q, int count, int stride, int dim) {
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += 128) {
        const int r = i / CHUNKS, chunk = i % CHUNKS;
        u32 highs[4] = {}, lows[4] = {};
        if (r < count && chunk * 8 < dim) {
            const float *from = q + (size_t)r * stride + chunk * 8;
#pragma unroll
            for (int w = 0; w < 4; w++) {
                highs[w] = NUMBER::pack(from[2 * w], from[2 * w + 1]);
                lows[w] = NUMBER::pack(left_over(from[2 * w]), left_over(from[2 * w + 1]));
            }
        }
        *(uint4 *)(high + swizzled(r, chunk)) = make_uint4(highs[0], highs[1], highs[2], highs[3]);
        *(uint4 *)(low + swizzled(r, chunk)) = make_uint4(lows[0], lows[1], lows[2], lows[3]);
    }
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_prefill_mma(const float *q, const void *k, const void *v, const int *positions, const int *slots, const int *pages, float *out,
                      int n_rows, int heads, int kv_heads, int dim, int q_stride, int out_stride, int page_tokens, int max_pages, int window,
                      float scale, float softcap) {
    extern __shared__ __align__(128) char raw[];
    __shared__ int row_slot[ROWS], row_end[ROWS];
    char *q_high = raw, *q_low = q_high + ROWS * DIM * 2, *k_tile = q_low + ROWS * DIM * 2, *v_tile = k_tile + KEYS * DIM * 2;
    const int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4, warp_row = 16 * (threadIdx.x / 32);
    const int row = blockIdx.x * ROWS, head = blockIdx.y, count = min(ROWS, n_rows - row);
    if (threadIdx.x < count) row_slot[threadIdx.x] = slots[row + threadIdx.x], row_end[threadIdx.x] = positions[row + threadIdx.x] + 1;
    load_queries(q_high, q_low, q + (size_t)row * q_stride + head * dim, count, q_stride, dim);
    __syncthreads();
    float result[DIM / 2] = {}, shrink[2];
    RowState state;
    const float factor = softcap > 0.0f ? 1.0f : scale * LOG2_E;

    for (int at = 0; at < count;) {
        const Run run(at, count, row_slot, row_end, window);
        at = run.after;
        const Cache cache{pages, run.slot, kv_heads, head / (heads / kv_heads), page_tokens, max_pages, dim};
        for (int column = run.begin / KEYS * KEYS; column < run.end; column += KEYS) {
            __syncthreads();
            load_keys(k_tile, k, cache, column, run.end);
            load_keys(v_tile, v, cache, column, run.end);
            __syncthreads();
            float scores[KEYS / 2] = {}; // 1.
#pragma unroll
            for (int step = 0; step < DIM / 16; step++) {
                u32 a[4];
                load_left(a, shared_address(q_high), warp_row, step);
                multiply_keys<NUMBER>(scores, a, shared_address(k_tile), step);
                load_left(a, shared_address(q_low), warp_row, step);
                multiply_keys<NUMBER>(scores, a, shared_address(k_tile), step);
            }
            if (softcap > 0.0f) {
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++) scores[i] = exponent_of(scores[i], scale, softcap);
            }
            if (run.needs_mask(column, KEYS, ROWS)) {
#pragma unroll
                for (int i = 0; i < KEYS / 2; i++) {
                    const int r = warp_row + g + 8 * (i / 2 % 2), key = column + 8 * (i / 4) + 2 * t + i % 2;
                    const bool seen = key < run.end_of(r, row_end) && key >= run.begin_of(r, row_end, window);
                    if (!seen) scores[i] = NEGATIVE_INFINITY;
                }
            }
            softmax_step(scores, state, shrink, factor); // 2.
            shrink_by(result, shrink);
            multiply_values<NUMBER>(result, scores, shared_address(v_tile)); // 3.
#pragma unroll
            for (int i = 0; i < KEYS / 2; i++) scores[i] = left_over(scores[i]);
            multiply_values<NUMBER>(result, scores, shared_address(v_tile));
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = state.sum[half];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        const int r = warp_row + g + 8 * half;
        if (r >= count) continue;
        const float by = sum > 0.0f ? __fdividef(1.0f, sum) : 0.0f;
        float *to = out + (size_t)(row + r) * out_stride + head * dim + 2 * t;
#pragma unroll
        for (int n = 0; n < DIM / 8; n++)
            if (8 * n < dim) to[8 * n] = result[4 * n + 2 * half] * by, to[8 * n + 1] = result[4 * n + 2 * half + 1] * by;
    }
}
