// What: attention of many rows over a cache, in f32 throughout.
// Source: FlashAttention (Dao et al. 2022), algorithm 1.
// Shapes: q, out rows of [heads][dim] f32; K, V as in cache.cuh; positions, slots [rows]; grid (rows / ROWS, heads), 256 threads.
// Method: ROWS rows; for each run of one slot, 32 keys at a time. Thread (y, x) owns MINE rows from MINE·y on and columns x + 16j, of scores
//   and of results. 1. Q·Kᵀ from shared memory. 2. Online softmax; 16 lanes share a row. 3. Weights to shared memory; V takes K's
//   place. 4. P·V.
// Exactness: f32; a row's bits do not depend on the rows beside it where they are of its slot's tiles.
// Cost: 4·dim FLOPs per row and key; K and V are read once per ROWS rows.
// Not handled: dim above DIM or not a multiple of 8.
#include "runs.cuh"
#include "warp.cuh"

#define KEYS 32
#define MINE (ROWS / 16)
#define WIDTH (DIM + 4)
#define P_WIDTH (KEYS + 4)

// Rows [column, column + KEYS) of a cache as f32; zeros beyond `end` and beyond the head's dims.
static __device__ __forceinline__ void load_keys(float *to, const void *from, const Cache &cache, int column, int end) {
    for (int i = threadIdx.x; i < KEYS * DIM / 8; i += 256) {
        const int key = i / (DIM / 8), d = i % (DIM / 8) * 8;
        float values[8] = {};
        if (column + key < end && d < cache.dim) {
            Eight<ELEMENT> eight;
            eight.load(from, cache.row(column + key) + d);
            eight.unpack(values);
        }
#pragma unroll
        for (int j = 0; j < 8; j++) to[key * WIDTH + d + j] = values[j];
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
attention_prefill_f32(const float *q, const void *k, const void *v, const int *positions, const int *slots, const int *pages, float *out,
                      int n_rows, int heads, int kv_heads, int dim, int q_stride, int out_stride, int page_tokens, int max_pages, int window,
                      float scale, float softcap) {
    extern __shared__ __align__(16) float shared[];
    __shared__ int row_slot[ROWS], row_end[ROWS];
    float *q_tile = shared, *kv_tile = q_tile + ROWS * WIDTH, *p_tile = kv_tile + KEYS * WIDTH;
    const int x = threadIdx.x & 15, y = threadIdx.x >> 4, row = blockIdx.x * ROWS, head = blockIdx.y, count = min(ROWS, n_rows - row);
    if (threadIdx.x < count) row_slot[threadIdx.x] = slots[row + threadIdx.x], row_end[threadIdx.x] = positions[row + threadIdx.x] + 1;
    for (int i = threadIdx.x; i < ROWS * DIM; i += 256) {
        const int r = i / DIM, d = i % DIM;
        q_tile[r * WIDTH + d] = r < count && d < dim ? q[(size_t)(row + r) * q_stride + head * dim + d] : 0.0f;
    }
    __syncthreads();
    float result[MINE][DIM / 16] = {}, largest[MINE], sum[MINE] = {};
#pragma unroll
    for (int r = 0; r < MINE; r++) largest[r] = NEGATIVE_INFINITY;

    for (int at = 0; at < count;) {
        const Run run(at, count, row_slot, row_end, window);
        at = run.after;
        const Cache cache{pages, run.slot, kv_heads, head / (heads / kv_heads), page_tokens, max_pages, dim};
        for (int column = run.begin / KEYS * KEYS; column < run.end; column += KEYS) {
            __syncthreads();
            load_keys(kv_tile, k, cache, column, run.end);
            __syncthreads();
            float score[MINE][2] = {}; // 1.
#pragma unroll 2
            for (int d = 0; d < DIM; d += 4) {
                float4 query[MINE], key[2];
#pragma unroll
                for (int i = 0; i < MINE; i++) query[i] = *(const float4 *)&q_tile[(MINE * y + i) * WIDTH + d];
#pragma unroll
                for (int i = 0; i < 2; i++) key[i] = *(const float4 *)&kv_tile[(x + 16 * i) * WIDTH + d];
#pragma unroll
                for (int r = 0; r < MINE; r++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        score[r][j] = fmaf(query[r].x, key[j].x, fmaf(query[r].y, key[j].y, score[r][j]));
                        score[r][j] = fmaf(query[r].z, key[j].z, fmaf(query[r].w, key[j].w, score[r][j]));
                    }
            }
#pragma unroll
            for (int r = 0; r < MINE; r++) { // 2.
                const int end = run.end_of(MINE * y + r, row_end), begin = run.begin_of(MINE * y + r, row_end, window);
                const float before = largest[r];
                float part = 0.0f;
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int key = column + x + 16 * j;
                    score[r][j] = key < end && key >= begin ? exponent_of(score[r][j], scale, softcap) : NEGATIVE_INFINITY;
                    largest[r] = fmaxf(largest[r], score[r][j]);
                }
#pragma unroll
                for (int step = 8; step > 0; step >>= 1) largest[r] = fmaxf(largest[r], __shfl_xor_sync(FULL_WARP, largest[r], step));
                const float shift = largest[r] == NEGATIVE_INFINITY ? 0.0f : largest[r], shrink = exp2_fast(before - shift);
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float weight = exp2_fast(score[r][j] - shift);
                    part += weight, p_tile[(MINE * y + r) * P_WIDTH + x + 16 * j] = weight; // 3.
                }
                sum[r] = fmaf(sum[r], shrink, part);
#pragma unroll
                for (int j = 0; j < DIM / 16; j++) result[r][j] *= shrink;
            }
            __syncthreads();
            load_keys(kv_tile, v, cache, column, run.end);
            __syncthreads();
#pragma unroll 4
            for (int key = 0; key < KEYS; key++) // 4.
#pragma unroll
                for (int j = 0; j < DIM / 16; j++) {
                    const float value = kv_tile[key * WIDTH + x + 16 * j];
#pragma unroll
                    for (int r = 0; r < MINE; r++) result[r][j] = fmaf(p_tile[(MINE * y + r) * P_WIDTH + key], value, result[r][j]);
                }
        }
    }
#pragma unroll
    for (int r = 0; r < MINE; r++) {
#pragma unroll
        for (int step = 8; step > 0; step >>= 1) sum[r] += __shfl_xor_sync(FULL_WARP, sum[r], step);
        const float by = sum[r] > 0.0f ? __fdividef(1.0f, sum[r]) : 0.0f;
        if (MINE * y + r >= count) continue;
#pragma unroll
        for (int j = 0; j < DIM / 16; j++)
            if (x + 16 * j < dim) out[(size_t)(row + MINE * y + r) * out_stride + head * dim + x + 16 * j] = result[r][j] * by;
    }
}
