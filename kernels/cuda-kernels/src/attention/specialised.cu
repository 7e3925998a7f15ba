// What: rungs a7 to a11, one thread asks for tiles while two warpgroups multiply; PING_PONG and OVERLAP say how they take turns.
// Source: FlashAttention-3 (Shah et al. 2024), sections 3.1 and 3.2.
// Shapes: as attention.cuh, q, k, v as maps [batch][heads][dim/64][len][64], and out in boxes of 64 rows; any number of blocks of 384
//   threads, which share the (128 rows, head, sequence) pieces of work, `section` heads after the other, of these the longest pieces
//   first: as many blocks as pieces, or one per multiprocessor (rungs a10, a11).
// Method: K and V have rings of two places, with a barrier for "full" and one for "empty" each. A consumer 1. issues S = Q·Kᵀ of this
//   tile and O += P·V of the one before; 2. waits for both, or with OVERLAP for S alone; 3. softmax of S; 4. waits for O, shrinks it,
//   packs P. PING_PONG lets one consumer issue while the other is at step 3. With BACKGROUND the ends of a piece are hidden: queries of
//   the next are asked for once the last scores are there, and results leave through shared memory while it is computed.
// Exactness: f32 sums; weights rounded to 16 bits before P·V.
// Cost: 4·DIM FLOPs per row and key; K and V are read once per 128 rows.
// Not handled: nothing that the ladder's launcher lets through.
#include "hopper_tiles.cuh"
#include "tensor_store.cuh"

#define CONSUMERS 2
#ifndef BACKGROUND
#define BACKGROUND 0
#endif

// A place of a ring and the parity of its barriers at position n.
struct Place {
    u32 offset, parity;
    __device__ __forceinline__ explicit Place(int n) : offset(n & 1), parity(n >> 1 & 1) {}
};

struct Shared {
    u32 q, k, v, results, q_full, q_empty, k_full, v_full, k_empty, v_empty;
    __device__ __forceinline__ explicit Shared(u32 base)
        : q(base), k(q + TILE_BYTES), v(k + 2 * TILE_BYTES), results(v + 2 * TILE_BYTES),
          q_full(results + BACKGROUND * TILE_BYTES), q_empty(q_full + 8), k_full(q_full + 16),
          v_full(q_full + 32), k_empty(q_full + 48), v_empty(q_full + 64) {}
};

// The pieces of a block. With a causal mask the last rows take longest, so all heads of a section's last rows come first.
struct Pieces {
    int batches, row_tiles, section, all;
    __device__ __forceinline__ Pieces(const Problem &problem, int batches, int section)
        : batches(batches), row_tiles((problem.q_len + ROWS - 1) / ROWS), section(section), all(row_tiles * problem.heads * batches) {}
    // The block's piece in round n: there is none where the answer is not below `all`. Rounds alternate in direction, so who had the
    // longest piece of one has the shortest of the next.
    __device__ __forceinline__ int work(int n) const {
        return n * gridDim.x + (BACKGROUND && n & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    }
    __device__ __forceinline__ int rounds() const { return (all + gridDim.x - 1) / gridDim.x; }
    // Sets head and sequence; gives the first row.
    __device__ __forceinline__ int take(Problem &problem, int work) const {
        const int before = work / (section * row_tiles) * section, heads = min(section, problem.heads * batches - before);
        const int rest = work - before * row_tiles, number = before + rest % heads;
        problem.head = number % problem.heads, problem.batch = number / problem.heads;
        return (row_tiles - 1 - rest / heads) * ROWS;
    }
};

static __device__ __forceinline__ void produce(const Shared &shared, const TensorMap *q, const TensorMap *k, const TensorMap *v, Problem problem,
                                               const Pieces &line) {
    int n = 0, pieces = 0;
    for (int round = 0; round < line.rounds(); round++) {
        if (line.work(round) >= line.all) continue;
        const int row = line.take(problem, line.work(round)), kv_head = problem.head / (problem.heads / problem.kv_heads);
        const Tiles tiles(problem, row, ROWS, KEYS);
        const int count = tiles.last - tiles.first + 1;
        if (count <= 0) continue;
        mbarrier_wait(shared.q_empty, pieces++ & 1 ^ 1);
        load_tile(shared.q, q, shared.q_full, row, problem.head, problem.batch);
        // keys one tile ahead of values: scores must never wait behind values
        for (int i = 0; i <= count; i++) {
            if (i < count) {
                const Place place(n + i);
                mbarrier_wait(shared.k_empty + 8 * place.offset, place.parity ^ 1);
                load_tile(shared.k + place.offset * TILE_BYTES, k, shared.k_full + 8 * place.offset, (tiles.last - i) * KEYS, kv_head, problem.batch);
            }
            if (i > 0) {
                const Place place(n + i - 1);
                mbarrier_wait(shared.v_empty + 8 * place.offset, place.parity ^ 1);
                load_tile(shared.v + place.offset * TILE_BYTES, v, shared.v_full + 8 * place.offset, (tiles.last - i + 1) * KEYS, kv_head, problem.batch);
            }
        }
        n += count;
    }
}

static __device__ __forceinline__ void release(u32 barrier) {
    __syncwarp();
    if ((threadIdx.x & 31) == 0) mbarrier_arrive(barrier);
}

// A consumer's 64 rows by way of its place in shared memory, which the piece before may still be leaving.
static __device__ __forceinline__ void leave(const float (&values)[DIM / 2], RowState &state, const Problem &problem, const TensorMap *out,
                                             float *lse, u32 place, int consumer, int row, float scale) {
    const int lane = threadIdx.x & 31, warp_row = 16 * (threadIdx.x / 32 & 3);
    float by[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = state.sum[half];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        by[half] = sum > 0.0f ? __fdividef(1.0f, sum) : 0.0f;
        const int r = row + warp_row + lane / 4 + 8 * half;
        if (lse && r < problem.q_len && (lane & 3) == 0)
            lse[problem.lse_row(r)] = sum > 0.0f ? (state.largest[half] * scale + __log2f(sum)) * LN_2 : NEGATIVE_INFINITY;
    }
    if ((threadIdx.x & 127) == 0) tensor_store_wait<0>();
    named_barrier_sync(3 + consumer, 128);
#pragma unroll
    for (int n = 0; n < DIM / 8; n += 2) {
        u32 words[4];
#pragma unroll
        for (int w = 0; w < 4; w++) {
            const float *pair = &values[4 * (n + w / 2) + 2 * (w & 1)];
            words[w] = NUMBER::pack(pair[0] * by[w & 1], pair[1] * by[w & 1]);
        }
        stmatrix_x4(panel_place(place + n / 8 * 64 * 128, warp_row + (lane & 15), n % 8 + (lane >> 4)), words[0], words[1], words[2], words[3]);
    }
    fence_async_shared();
    named_barrier_sync(3 + consumer, 128);
    if ((threadIdx.x & 127) == 0) {
        tensor_store_5d(out, place, 0, row, 0, problem.head, problem.batch);
        tensor_store_commit();
    }
}

static __device__ __forceinline__ void consume(const Shared &shared, Problem problem, const TensorMap *out_map, unsigned short *out, float *lse,
                                               const Pieces &line, float scale) {
    const int consumer = threadIdx.x / 128 - 1, lane = threadIdx.x & 31;
    const u32 q_rows = shared.q + consumer * 64 * 128;
    int n = 0, pieces = 0;
#if PING_PONG
    if (consumer == 0) named_barrier_arrive(1, 256); // the first turn
#endif
    for (int round = 0; round < line.rounds(); round++) {
        if (line.work(round) >= line.all) continue;
        const int row = line.take(problem, line.work(round)), my_row = row + 16 * (threadIdx.x / 32 - 4) + lane / 4;
        const Tiles tiles(problem, row, ROWS, KEYS);
        const int count = tiles.last - tiles.first + 1;
        float result[DIM / 2] = {}, scores[KEYS / 2], shrink[2];
        u32 weights[KEYS / 16][4];
        RowState state;
        const auto softmax = [&](int at) {
            const int column = at * KEYS;
            if (needs_mask(problem, row, ROWS, column, KEYS)) mask_scores(scores, problem, my_row, column + 2 * (lane % 4));
            softmax_step(scores, state, shrink, scale);
        };
        if (count > 0) {
            const Place first(n);
            mbarrier_wait(shared.q_full, pieces++ & 1);
            mbarrier_wait(shared.k_full + 8 * first.offset, first.parity);
            multiply_keys(scores, q_rows, shared.k + first.offset * TILE_BYTES);
            wgmma_wait<0>();
            wgmma_pin(scores);
            release(shared.k_empty + 8 * first.offset);
            if (BACKGROUND && count == 1) release(shared.q_empty);
            softmax(tiles.last);
            pack_weights(weights, scores);
            for (int i = 1; i < count; i++) {
                const Place here(n + i), before(n + i - 1);
                mbarrier_wait(shared.k_full + 8 * here.offset, here.parity);
#if PING_PONG
                named_barrier_sync(1 + consumer, 256);
#endif
                multiply_keys(scores, q_rows, shared.k + here.offset * TILE_BYTES); // 1.
                mbarrier_wait(shared.v_full + 8 * before.offset, before.parity);
                multiply_values(result, weights, shared.v + before.offset * TILE_BYTES);
#if PING_PONG
                named_barrier_arrive(2 - consumer, 256);
#endif
                wgmma_wait<OVERLAP>(); // 2.
                wgmma_pin(scores);
                release(shared.k_empty + 8 * here.offset);
                if (BACKGROUND && i == count - 1) release(shared.q_empty);
                softmax(tiles.last - i); // 3.
#if OVERLAP
                // never so; but a branch keeps the assembler from moving the wait above the exponentials
                if (problem.q_len == -7) __nanosleep(100);
                wgmma_wait<0>(); // 4.
#endif
                wgmma_pin(result);
                release(shared.v_empty + 8 * before.offset);
                shrink_by(result, shrink);
                pack_weights(weights, scores);
            }
            const Place last(n + count - 1);
            mbarrier_wait(shared.v_full + 8 * last.offset, last.parity);
            multiply_values(result, weights, shared.v + last.offset * TILE_BYTES);
            wgmma_wait<0>();
            wgmma_pin(result);
            release(shared.v_empty + 8 * last.offset);
            if (!BACKGROUND) release(shared.q_empty);
            n += count;
        }
#if BACKGROUND
        leave(result, state, problem, out_map, lse, shared.results + consumer * (TILE_BYTES / 2), consumer, row + 64 * consumer, scale);
#else
        write_rows<NUMBER>(result, state, problem, out, lse, my_row, scale);
#endif
    }
    // shared memory must outlive what leaves it
    if (BACKGROUND && (threadIdx.x & 127) == 0) tensor_store_wait<0>();
}

extern "C" __global__ void __launch_bounds__(384)
attention_specialised(const __grid_constant__ TensorMap q, const __grid_constant__ TensorMap k, const __grid_constant__ TensorMap v,
                      const __grid_constant__ TensorMap out_map, unsigned short *out, float *lse, int q_len, int kv_len, int heads,
                      int kv_heads, int causal, int window, float scale, int batches, int section) {
    extern __shared__ char raw[];
    const Shared shared((shared_address(raw) + 1023) & ~1023u);
    const Problem problem{q_len, kv_len, heads, kv_heads, causal, window, 0, 0};
    const Pieces line(problem, batches, section);
    if (threadIdx.x == 0) {
        mbarrier_init(shared.q_full, 1), mbarrier_init(shared.q_empty, CONSUMERS * 4);
        for (int i = 0; i < 2; i++) {
            mbarrier_init(shared.k_full + 8 * i, 1), mbarrier_init(shared.v_full + 8 * i, 1);
            mbarrier_init(shared.k_empty + 8 * i, CONSUMERS * 4), mbarrier_init(shared.v_empty + 8 * i, CONSUMERS * 4);
        }
        mbarrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_give_back<24>();
        if (threadIdx.x == 0) produce(shared, &q, &k, &v, problem, line);
    } else {
        registers_take<240>();
        consume(shared, problem, &out_map, out, lse, line, scale);
    }
}
