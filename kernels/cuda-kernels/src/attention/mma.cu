// What: rung a3, tensor cores: fragments by plain loads from padded rows; weights stay in registers.
// Source: FlashAttention-2 (Dao 2023), section 3; fragment maps of PTX mma.m16n8k16.
// Shapes: as attention.cuh; grid (q_len / 64, heads, batch), 128 threads, dynamic shared memory.
// Method: a warp owns 16 rows, 64 keys at a time. 1. S = Q·Kᵀ. 2. Online softmax on the fragment. 3. O += P·V: the fragment of S is
//   the left operand as it lies; a word of V's fragment is two rows, so it takes two loads.
// Exactness: f32 sums; weights rounded to 16 bits before P·V.
// Cost: 4·DIM FLOPs per row and key; K and V are read once per 64 rows.
// Not handled: nothing that the ladder's launcher lets through.
#include "attention.cuh"

#define ROWS 64
#define KEYS 64
#define WIDTH (DIM + 8) // rows 16 bytes apart in the banks

static __device__ __forceinline__ void load_rows(unsigned short *to, const unsigned short *from, size_t first, size_t step, int count) {
    for (int i = threadIdx.x; i < 64 * DIM / 8; i += 128) {
        const int row = i / (DIM / 8), chunk = i % (DIM / 8);
        *(uint4 *)(to + row * WIDTH + chunk * 8) =
            row < count ? *(const uint4 *)(from + first + row * step + chunk * 8) : make_uint4(0, 0, 0, 0);
    }
}
static __device__ __forceinline__ u32 word(const unsigned short *at) { return *(const u32 *)at; }

extern "C" __global__ void __launch_bounds__(128)
attention_mma(const unsigned short *q, const unsigned short *k, const unsigned short *v, unsigned short *out, float *lse, int q_len, int kv_len,
              int heads, int kv_heads, int causal, int window, float scale) {
    extern __shared__ __align__(16) unsigned short shared[];
    unsigned short *q_tile = shared, *k_tile = q_tile + ROWS * WIDTH, *v_tile = k_tile + KEYS * WIDTH;
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int lane = threadIdx.x & 31, g = lane / 4, t = lane % 4;
    const int row = blockIdx.x * ROWS, my_row = 16 * (threadIdx.x / 32) + g; // of the tile
    load_rows(q_tile, q, problem.q_row(row), (size_t)heads * DIM, q_len - row);
    float result[DIM / 2] = {}, shrink[2];
    RowState state;

    const Tiles tiles(problem, row, ROWS, KEYS);
    for (int at = tiles.last; at >= tiles.first; at--) {
        const int column = at * KEYS;
        __syncthreads();
        load_rows(k_tile, k, problem.kv_row(column), (size_t)kv_heads * DIM, kv_len - column);
        load_rows(v_tile, v, problem.kv_row(column), (size_t)kv_heads * DIM, kv_len - column);
        __syncthreads();
        float scores[KEYS / 2] = {}; // 1.
#pragma unroll
        for (int d = 0; d < DIM; d += 16) {
            u32 a[4];
#pragma unroll
            for (int w = 0; w < 4; w++) a[w] = word(q_tile + (my_row + 8 * (w & 1)) * WIDTH + d + 2 * t + 8 * (w >> 1));
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
                const unsigned short *key = k_tile + (8 * n + g) * WIDTH + d + 2 * t;
                mma_16x8x16<NUMBER>(tile(scores, n), a, word(key), word(key + 8));
            }
        }
        if (needs_mask(problem, row, ROWS, column, KEYS)) mask_scores(scores, problem, row + my_row, column + 2 * t); // 2.
        softmax_step(scores, state, shrink, scale);
        shrink_by(result, shrink);
#pragma unroll
        for (int step = 0; step < KEYS / 16; step++) { // 3.
            u32 a[4];
            left_operand<NUMBER>(a, scores, step);
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                const unsigned short *value = v_tile + (16 * step + 2 * t) * WIDTH + 8 * n + g;
                const u32 b0 = value[0] | (u32)value[WIDTH] << 16, b1 = value[8 * WIDTH] | (u32)value[9 * WIDTH] << 16;
                mma_16x8x16<NUMBER>(tile(result, n), a, b0, b1);
            }
        }
    }
    write_rows<NUMBER>(result, state, problem, out, lse, row + my_row, scale);
}
