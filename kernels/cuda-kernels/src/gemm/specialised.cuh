// A product's main loop on Hopper: one warpgroup only copies, two only multiply, a ring of stages between them. A stage is 128 bytes of k
// of 128 rows of A and 256 of B, whatever the numbers in them.
//   1. the producer's one thread fills stages as consumers empty them. 2. a consumer issues a stage's products, waits for those of the
//   stage before and hands that one back. 3. blocks of a CLUSTER take tiles below each other: each fetches its part of B's tile for all, and
//   fills a stage when the consumers of all have handed it back.
#pragma once
#include "hopper.cuh"

#ifndef CLUSTER
#define CLUSTER 1
#endif
#define STAGES 4
#define A_BYTES (128 * 128)
#define STAGE_BYTES (A_BYTES + 256 * 128)
// Rows of tiles that are walked down before the next column, for L2.
#define GROUP_ROWS 8
// Rows of B that a block fetches.
#define FETCHED (256 / CLUSTER)

struct Tile {
    int row, column;
};

// The `index`th of `rows` x `columns` tiles; a cluster's tile has 128 rows per block.
static __device__ __forceinline__ Tile grouped_tile(int index, int rows, int columns) {
    const int high = GROUP_ROWS / CLUSTER, per_group = high * columns, group = index / per_group;
    const int height = min(high, rows - group * high), within = index % per_group;
    return {(group * high + within % height) * CLUSTER, within / height};
}

// A place in the ring of stages.
struct Ring {
    int stage;
    u32 phase;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

// Shared memory of the ring: stages from `base`, a multiple of 1024, and two barriers of each.
struct Stages {
    u32 base, full, empty;

    // Behind this, every barrier of the cluster is there.
    __device__ __forceinline__ void begin() const {
        if (threadIdx.x == 0) {
            for (int s = 0; s < STAGES; s++) {
                mbarrier_init(full + 8 * s, 1);
                // one thread of each consumer that reads the stage, and only by wgmma
                mbarrier_init(empty + 8 * s, 2 * CLUSTER);
            }
            mbarrier_init_fence();
        }
        if (CLUSTER > 1) cluster_sync();
        else __syncthreads();
    }

    // One thread: the steps of one tile of the block `rank` of the cluster.
    __device__ __forceinline__ void fill(Ring &ring, const TensorMap &a, const TensorMap &b, const Tile &tile, int rank, int steps) const {
        const int row = (tile.row + rank) * 128, column = tile.column * 256 + rank * FETCHED;
        for (int step = 0; step < steps; step++) {
            const u32 to = base + ring.stage * STAGE_BYTES, barrier = full + 8 * ring.stage;
#if CLUSTER > 1
            mbarrier_wait_for_cluster(empty + 8 * ring.stage, ring.phase);
#else
            mbarrier_wait(empty + 8 * ring.stage, ring.phase);
#endif
            // all of B, whoever fetches it
            mbarrier_expect(barrier, STAGE_BYTES);
            tensor_load_2d(to, &a, barrier, step * 64, row);
#if CLUSTER > 1
            tensor_load_2d_multicast(to + A_BYTES + rank * FETCHED * 128, &b, barrier, step * 64, column, (1 << CLUSTER) - 1);
#else
            tensor_load_2d(to + A_BYTES, &b, barrier, step * 64, column);
#endif
            ring.advance();
        }
    }

    // To this block's producer and, in a cluster, to the others'.
    __device__ __forceinline__ void hand_back(int stage, int lane) const {
#if CLUSTER > 1
        if (lane < CLUSTER) mbarrier_arrive_in(lane, empty + 8 * stage);
#else
        if (lane == 0) mbarrier_arrive(empty + 8 * stage);
#endif
    }

    // One warpgroup: 64 rows of one tile, cleared first. `Product` multiplies 32 bytes of k.
    template <class Product, class Sum> __device__ __forceinline__ void multiply(Ring &ring, Sum (&sum)[128], int half, int lane, int steps) const {
        int before = 0;
        for (int step = 0; step < steps; step++) {
            mbarrier_wait(full + 8 * ring.stage, ring.phase);
            const u64 left = wgmma_descriptor(base + ring.stage * STAGE_BYTES + half * 64 * 128, 16);
            const u64 right = wgmma_descriptor(base + ring.stage * STAGE_BYTES + A_BYTES, 16);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 4; i++)
                Product::issue(sum, descriptor_advance(left, 32 * i), descriptor_advance(right, 32 * i), step > 0 || i > 0);
            wgmma_commit();
            wgmma_wait<1>();
            if (step > 0) hand_back(before, lane);
            before = ring.stage;
            ring.advance();
        }
        wgmma_wait<0>();
        wgmma_pin(sum);
        hand_back(before, lane);
    }

    // A block's barriers outlive the arrivals of others.
    __device__ __forceinline__ void end() const {
        if (CLUSTER > 1) cluster_sync();
    }
};
