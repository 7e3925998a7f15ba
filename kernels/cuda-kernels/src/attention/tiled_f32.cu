// What: rung a2, fused: tiles of keys and values in shared memory, scores never leave the chip.
// Source: FlashAttention (Dao et al. 2022), algorithm 1; the loop order of FlashAttention-2.
// Shapes: as attention.cuh; grid (q_len / 64, heads, batch), 256 threads, dynamic shared memory.
// Method: 64 rows, 64 keys at a time. Thread (y, x) owns rows 4y … 4y+3 and columns x + 16j, of scores and of results.
//   1. Q·Kᵀ from shared memory. 2. Online softmax; 16 lanes share a row. 3. Weights to shared memory; V takes K's place. 4. P·V.
// Exactness: f32; results rounded once to 16 bits.
// Cost: 4·DIM FLOPs per row and key; K and V are read once per 64 rows.
// Not handled: nothing that the ladder's launcher lets through.
#include "attention.cuh"

#define TILE 64
#define WIDTH (DIM + 4) // 16 bytes more than a row: reads of 16 bytes from eight rows touch all banks once
#define P_WIDTH (TILE + 4)

static __device__ __forceinline__ void load_rows(float *to, const unsigned short *from, size_t first, size_t step, int count) {
    for (int i = threadIdx.x; i < TILE * DIM; i += 256) {
        const int row = i / DIM, d = i % DIM;
        to[row * WIDTH + d] = row < count ? NUMBER::to_float(from[first + row * step + d]) : 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_tiled_f32(const unsigned short *q, const unsigned short *k, const unsigned short *v, unsigned short *out, float *lse, int q_len,
                    int kv_len, int heads, int kv_heads, int causal, int window, float scale) {
    extern __shared__ __align__(16) float shared[];
    float *q_tile = shared, *kv_tile = q_tile + TILE * WIDTH, *p_tile = kv_tile + TILE * WIDTH;
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int x = threadIdx.x & 15, y = threadIdx.x >> 4, row = blockIdx.x * TILE;
    load_rows(q_tile, q, problem.q_row(row), (size_t)heads * DIM, q_len - row);
    float result[4][DIM / 16] = {}, largest[4], sum[4] = {};
#pragma unroll
    for (int r = 0; r < 4; r++) largest[r] = NEGATIVE_INFINITY;

    const Tiles tiles(problem, row, TILE, TILE);
    for (int tile = tiles.first; tile <= tiles.last; tile++) {
        const int column = tile * TILE;
        __syncthreads();
        load_rows(kv_tile, k, problem.kv_row(column), (size_t)kv_heads * DIM, kv_len - column);
        __syncthreads();
        float score[4][4] = {}; // 1.
#pragma unroll 2
        for (int d = 0; d < DIM; d += 4) {
            float4 query[4], key[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                query[i] = *(const float4 *)&q_tile[(4 * y + i) * WIDTH + d];
                key[i] = *(const float4 *)&kv_tile[(x + 16 * i) * WIDTH + d];
            }
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    score[r][j] = fmaf(query[r].x, key[j].x, fmaf(query[r].y, key[j].y, score[r][j]));
                    score[r][j] = fmaf(query[r].z, key[j].z, fmaf(query[r].w, key[j].w, score[r][j]));
                }
        }
#pragma unroll
        for (int r = 0; r < 4; r++) { // 2.
            const int end = problem.end(row + 4 * y + r), begin = problem.begin(row + 4 * y + r);
            float before = largest[r], part = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int key = column + x + 16 * j;
                score[r][j] = key < end && key >= begin ? score[r][j] * scale : NEGATIVE_INFINITY;
                largest[r] = fmaxf(largest[r], score[r][j]);
            }
#pragma unroll
            for (int step = 8; step > 0; step >>= 1) largest[r] = fmaxf(largest[r], __shfl_xor_sync(FULL_WARP, largest[r], step));
            const float shift = largest[r] == NEGATIVE_INFINITY ? 0.0f : largest[r], shrink = exp2_fast(before - shift);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float weight = exp2_fast(score[r][j] - shift);
                part += weight, p_tile[(4 * y + r) * P_WIDTH + x + 16 * j] = weight; // 3.
            }
            sum[r] = fmaf(sum[r], shrink, part);
#pragma unroll
            for (int j = 0; j < DIM / 16; j++) result[r][j] *= shrink;
        }
        __syncthreads();
        load_rows(kv_tile, v, problem.kv_row(column), (size_t)kv_heads * DIM, kv_len - column);
        __syncthreads();
#pragma unroll 2
        for (int key = 0; key < TILE; key += 4) { // 4.
            float4 weight[4];
#pragma unroll
            for (int r = 0; r < 4; r++) weight[r] = *(const float4 *)&p_tile[(4 * y + r) * P_WIDTH + key];
#pragma unroll
            for (int j = 0; j < DIM / 16; j++) {
                const float *value = &kv_tile[key * WIDTH + x + 16 * j];
                const float four[4] = {value[0], value[WIDTH], value[2 * WIDTH], value[3 * WIDTH]};
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    result[r][j] = fmaf(weight[r].x, four[0], fmaf(weight[r].y, four[1], result[r][j]));
                    result[r][j] = fmaf(weight[r].z, four[2], fmaf(weight[r].w, four[3], result[r][j]));
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
#pragma unroll
        for (int step = 8; step > 0; step >>= 1) sum[r] += __shfl_xor_sync(FULL_WARP, sum[r], step);
        const int at = row + 4 * y + r;
        if (at >= q_len) continue;
        const float by = sum[r] > 0.0f ? __fdividef(1.0f, sum[r]) : 0.0f;
#pragma unroll
        for (int j = 0; j < DIM / 16; j++) out[problem.q_row(at) + x + 16 * j] = NUMBER::from_float(result[r][j] * by);
        if (lse && x == 0) lse[problem.lse_row(at)] = sum[r] > 0.0f ? (largest[r] + __log2f(sum[r])) * LN_2 : NEGATIVE_INFINITY;
    }
}
