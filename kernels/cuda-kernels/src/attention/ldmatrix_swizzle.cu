// What: rung a4, fragments by ldmatrix from rows whose 16-byte chunks change places by XOR.
// Source: PTX ldmatrix; the swizzle of CUTLASS.
// Shapes: as attention.cuh; grid (q_len / 64, heads, batch), 128 threads, dynamic shared memory.
// Method: as rung a3. Chunk c of row r lies at chunk c ^ (r % 8), so eight rows of a column of chunks lie in eight bank groups; one
//   ldmatrix gives four 8 x 8 tiles: a left operand, or two right operands (transposed on the way for V).
// Exactness: f32 sums; weights rounded to 16 bits before P·V.
// Cost: 4·DIM FLOPs per row and key; K and V are read once per 64 rows.
// Not handled: nothing that the ladder's launcher lets through.
#include "swizzled.cuh"

#define ROWS 64
#define KEYS 64

static __device__ __forceinline__ void load_rows(char *to, const unsigned short *from, size_t first, size_t step, int count) {
    for (int i = threadIdx.x; i < 64 * CHUNKS; i += 128) {
        const int row = i / CHUNKS, chunk = i % CHUNKS;
        *(uint4 *)(to + swizzled(row, chunk)) =
            row < count ? *(const uint4 *)(from + first + row * step + chunk * 8) : make_uint4(0, 0, 0, 0);
    }
}

extern "C" __global__ void __launch_bounds__(128)
attention_ldmatrix_swizzle(const unsigned short *q, const unsigned short *k, const unsigned short *v, unsigned short *out, float *lse, int q_len,
                           int kv_len, int heads, int kv_heads, int causal, int window, float scale) {
    extern __shared__ __align__(128) char raw[];
    char *q_tile = raw, *k_tile = q_tile + ROWS * DIM * 2, *v_tile = k_tile + KEYS * DIM * 2;
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int lane = threadIdx.x & 31, warp_row = 16 * (threadIdx.x / 32), row = blockIdx.x * ROWS;
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
        float scores[KEYS / 2] = {};
#pragma unroll
        for (int step = 0; step < DIM / 16; step++) {
            u32 a[4];
            load_left(a, shared_address(q_tile), warp_row, step);
            multiply_keys<NUMBER>(scores, a, shared_address(k_tile), step);
        }
        if (needs_mask(problem, row, ROWS, column, KEYS))
            mask_scores(scores, problem, row + warp_row + lane / 4, column + 2 * (lane % 4));
        softmax_step(scores, state, shrink, scale);
        shrink_by(result, shrink);
        multiply_values<NUMBER>(result, scores, shared_address(v_tile));
    }
    write_rows<NUMBER>(result, state, problem, out, lse, row + warp_row + lane / 4, scale);
}
