// What: rungs a5, the next tiles are copied while this one is multiplied. The fastest before Hopper.
// Source: FlashAttention-2 (Dao 2023), sections 3.1 and 3.2.
// Shapes: as attention.cuh; grid (any, heads, batch), 256 threads, dynamic shared memory. The blocks of a head share its tiles of 128
//   rows: a block per tile (a5_pipelined), or one for all of them, as FlashAttention-1 had it (a5_serial_rows). Same machine code.
// Method: as rung a4 with 128 rows. K and V have two places each. Per tile, from the diagonal down: 1. wait for its copies; the
//   barrier also says that everybody is done with the other place. 2. Start copying the next tile there. 3. Multiply. Tiles above
//   the diagonal are not visited, and only those on it pay for a mask.
// Exactness: f32 sums; weights rounded to 16 bits before P·V.
// Cost: 4·DIM FLOPs per row and key; K and V are read once per 128 rows.
// Not handled: nothing that the ladder's launcher lets through.
#include "swizzled.cuh"

#define ROWS 128
#define KEYS 64

// A thread copies one chunk of every 256 / CHUNKS-th row, so its place in the swizzle is the same in all of them.
template <int rows> static __device__ __forceinline__ void copy_rows(u32 to, const unsigned short *from, size_t step, int count) {
    const u32 row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const unsigned short *first = from + chunk * 8, *at = first + row * step;
    to += swizzled(row, chunk);
#pragma unroll
    for (int j = 0; j < rows * CHUNKS / 256; j++, at += 256 / CHUNKS * step) {
        // a row that does not exist becomes zeros, and its address the first row's: it must be mapped all the same
        const bool there = (int)row + j * (256 / CHUNKS) < count;
        copy_async_16(to + j * 256 * 16, there ? at : first, there);
    }
}

extern "C" __global__ void __launch_bounds__(256)
attention_pipelined(const unsigned short *q, const unsigned short *k, const unsigned short *v, unsigned short *out, float *lse, int q_len,
                    int kv_len, int heads, int kv_heads, int causal, int window, float scale) {
    extern __shared__ __align__(128) char raw[];
    const u32 q_tile = shared_address(raw), k_tiles = q_tile + ROWS * DIM * 2, v_tiles = k_tiles + 2 * KEYS * DIM * 2;
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int lane = threadIdx.x & 31, warp_row = 16 * (threadIdx.x / 32);
    const size_t kv_step = (size_t)kv_heads * DIM, kv_first = problem.kv_row(0);
    const auto copy_tile = [&](int at) {
        const int column = at * KEYS, place = (at & 1) * KEYS * DIM * 2;
        copy_rows<KEYS>(k_tiles + place, k + kv_first + column * kv_step, kv_step, kv_len - column);
        copy_rows<KEYS>(v_tiles + place, v + kv_first + column * kv_step, kv_step, kv_len - column);
    };
    // the longest first
    for (int row = ((q_len - 1) / ROWS - (int)blockIdx.x) * ROWS; row >= 0; row -= gridDim.x * ROWS) {
        const Tiles tiles(problem, row, ROWS, KEYS);
        copy_rows<ROWS>(q_tile, q + problem.q_row(row), (size_t)heads * DIM, q_len - row);
        if (tiles.last >= tiles.first) copy_tile(tiles.last);
        copy_async_commit();

        float result[DIM / 2] = {}, shrink[2];
        RowState state;
        u32 a[DIM / 16][4];
        for (int at = tiles.last; at >= tiles.first; at--) {
            const int column = at * KEYS, place = (at & 1) * KEYS * DIM * 2;
            copy_async_wait<0>(); // 1.
            __syncthreads();
            if (at > tiles.first) copy_tile(at - 1); // 2.
            copy_async_commit();
            if (at == tiles.last) {
#pragma unroll
                for (int step = 0; step < DIM / 16; step++) load_left(a[step], q_tile, warp_row, step);
            }
            float scores[KEYS / 2] = {}; // 3.
#pragma unroll
            for (int step = 0; step < DIM / 16; step++) multiply_keys<NUMBER>(scores, a[step], k_tiles + place, step);
            if (needs_mask(problem, row, ROWS, column, KEYS))
                mask_scores(scores, problem, row + warp_row + lane / 4, column + 2 * (lane % 4));
            softmax_step(scores, state, shrink, scale);
            shrink_by(result, shrink);
            multiply_values<NUMBER>(result, scores, v_tiles + place);
        }
        copy_async_wait<0>();
        write_rows<NUMBER>(result, state, problem, out, lse, row + warp_row + lane / 4, scale);
        __syncthreads(); // the next rows' copies go where others may still read
    }
}
