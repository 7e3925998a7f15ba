// What: rung a6, Hopper's warpgroup products on tiles that tensor copies bring; all threads multiply, thread 0 also asks for copies.
// Source: FlashAttention-3 (Shah et al. 2024), section 2.2 and 3; PTX wgmma and cp.async.bulk.tensor.
// Shapes: as attention.cuh, q, k, v as maps [batch][heads][dim/64][len][64]; grid (q_len / 128, heads, batch), 256 threads.
// Method: two warpgroups of 64 rows, 128 keys at a time in two places. 1. S = Q·Kᵀ, both from shared memory. 2. Online softmax.
//   3. O += P·V, P in registers. 4. When all are done with a place, the tile after next is asked for.
// Exactness: f32 sums; weights rounded to 16 bits before P·V.
// Cost: 4·DIM FLOPs per row and key; K and V are read once per 128 rows.
// Not handled: nothing that the ladder's launcher lets through.
#include "hopper_tiles.cuh"

extern "C" __global__ void __launch_bounds__(256)
attention_wgmma_tma(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
                    unsigned short *out, float *lse, int q_len, int kv_len, int heads, int kv_heads, int causal, int window, float scale) {
    extern __shared__ char raw[];
    const u32 q_tile = (shared_address(raw) + 1023) & ~1023u, k_tiles = q_tile + TILE_BYTES, v_tiles = k_tiles + 2 * TILE_BYTES;
    const u32 q_full = v_tiles + 2 * TILE_BYTES, k_full = q_full + 8, v_full = k_full + 16;
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, (int)blockIdx.y, (int)blockIdx.z};
    const int lane = threadIdx.x & 31, row = (gridDim.x - 1 - blockIdx.x) * ROWS; // the longest first
    const int my_row = row + 16 * (threadIdx.x / 32) + lane / 4, kv_head = problem.head / (heads / kv_heads);
    const Tiles tiles(problem, row, ROWS, KEYS);
    const auto load_pair = [&](int at, int place) {
        load_tile(k_tiles + place * TILE_BYTES, &k, k_full + 8 * place, at * KEYS, kv_head, problem.batch);
        load_tile(v_tiles + place * TILE_BYTES, &v, v_full + 8 * place, at * KEYS, kv_head, problem.batch);
    };
    if (threadIdx.x == 0) {
        for (int i = 0; i < 5; i++) mbarrier_init(q_full + 8 * i, 1);
        mbarrier_init_fence();
        if (tiles.last >= tiles.first) load_tile(q_tile, &q, q_full, row, problem.head, problem.batch);
        for (int i = 0; i < 2 && tiles.last - i >= tiles.first; i++) load_pair(tiles.last - i, i);
    }
    __syncthreads();

    float result[DIM / 2] = {}, scores[KEYS / 2], shrink[2];
    u32 weights[KEYS / 16][4];
    RowState state;
    if (tiles.last >= tiles.first) mbarrier_wait(q_full, 0);
    for (int at = tiles.last, n = 0; at >= tiles.first; at--, n++) {
        const int place = n & 1, parity = n >> 1 & 1, column = at * KEYS;
        mbarrier_wait(k_full + 8 * place, parity);
        multiply_keys(scores, q_tile + threadIdx.x / 128 * 64 * 128, k_tiles + place * TILE_BYTES); // 1.
        wgmma_wait<0>();
        wgmma_pin(scores);
        if (needs_mask(problem, row, ROWS, column, KEYS)) mask_scores(scores, problem, my_row, column + 2 * (lane % 4)); // 2.
        softmax_step(scores, state, shrink, scale);
        shrink_by(result, shrink);
        pack_weights(weights, scores);
        mbarrier_wait(v_full + 8 * place, parity);
        multiply_values(result, weights, v_tiles + place * TILE_BYTES); // 3.
        wgmma_wait<0>();
        wgmma_pin(result);
        __syncthreads(); // 4.
        if (threadIdx.x == 0 && at - 2 >= tiles.first) load_pair(at - 2, place);
    }
    write_rows<NUMBER>(result, state, problem, out, lse, my_row, scale);
}
