// Hopper's asynchronous machinery: barriers in shared memory, tensor copies (TMA), descriptors and fences of wgmma, registers that
// move between warpgroups. Kernels that include this need sm_90a.
#pragma once
#include "mma.cuh"
#include "wgmma.cuh"

// 128 opaque bytes that the driver encodes; a kernel takes them as `const __grid_constant__ TensorMap`.
struct alignas(64) TensorMap {
    char opaque[128];
};

// ---- barriers: addresses are of 8 bytes of shared memory ----

static __device__ __forceinline__ void mbarrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the inits of one thread and before the __syncthreads that shows them to the others.
static __device__ __forceinline__ void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

static __device__ __forceinline__ void mbarrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives and announces the bytes that copies will bring in this phase.
static __device__ __forceinline__ void mbarrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
static __device__ __forceinline__ bool mbarrier_try_wait(u32 barrier, u32 parity) {
    u32 done;
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
    return done != 0;
}
// Until the phase of this parity is complete: 0 for the first. A fresh barrier counts its phase 1 as complete.
static __device__ __forceinline__ void mbarrier_wait(u32 barrier, u32 parity) {
    while (!mbarrier_try_wait(barrier, parity)) {
    }
}

// Barrier `id` (1 to 15; 0 is __syncthreads) of `threads` threads, those included that only arrive.
static __device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
static __device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- clusters: blocks that run together and reach into each other's shared memory ----

static __device__ __forceinline__ u32 cluster_rank() {
    u32 rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// All threads of all blocks; what they did before is seen by all after.
static __device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// Arrives at the barrier that lies at this place in block `rank` of the cluster, which must not have ended.
static __device__ __forceinline__ void mbarrier_arrive_in(u32 rank, u32 barrier) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank) : "memory");
}
// Like mbarrier_wait, where other blocks arrive.
static __device__ __forceinline__ void mbarrier_wait_for_cluster(u32 barrier, u32 parity) {
    u32 done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
    } while (!done);
}

// ---- tensor copies: one thread asks, the barrier counts the bytes; what lies outside the tensor arrives as zeros ----

static __device__ __forceinline__ void tensor_prefetch(const TensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
static __device__ __forceinline__ void tensor_load_2d(u32 to, const TensorMap *map, u32 barrier, int x0, int x1) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1) : "memory");
}
static __device__ __forceinline__ void tensor_load_3d(u32 to, const TensorMap *map, u32 barrier, int x0, int x1, int x2) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1), "r"(x2) : "memory");
}
static __device__ __forceinline__ void tensor_load_5d(u32 to, const TensorMap *map, u32 barrier, int x0, int x1, int x2, int x3, int x4) {
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
}
// The same box to the same place in every block of the cluster whose bit is set in `blocks`, each told by its own barrier.
static __device__ __forceinline__ void tensor_load_2d_multicast(u32 to, const TensorMap *map, u32 barrier, int x0, int x1, unsigned short blocks) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x0), "r"(x1), "h"(blocks) : "memory");
}
// Ordinary stores to shared memory, made visible to tensor copies and wgmma: by every thread that stored, then a barrier.
static __device__ __forceinline__ void fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- wgmma ----

// Descriptor of a tile of 16-bit numbers with rows of 128 bytes under the 128-byte swizzle, its base a multiple of 1024.
//   k contiguous ([rows][64 of k]): the next 16 of k lie 32 bytes on, `leading` is not used
//   k across ([k][64 of n] panels): the next 16 of k lie 2048 bytes on, `leading` = bytes from one panel to the next
static __device__ __forceinline__ u64 wgmma_descriptor(u32 address, u32 leading) {
    return (u64)((address & 0x3ffff) >> 4) | (u64)((leading & 0x3ffff) >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}
// The descriptor `bytes` further on.
static __device__ __forceinline__ u64 descriptor_advance(u64 descriptor, u32 bytes) { return descriptor + (bytes >> 4); }

// Before the first product of a batch, and after ordinary instructions wrote registers that it uses.
static __device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `pending` of the latest groups are under way.
template <int pending> static __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// Keeps the compiler from moving uses of results above the wait.
template <int n> static __device__ __forceinline__ void wgmma_pin(float (&d)[n]) {
#pragma unroll
    for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int n> static __device__ __forceinline__ void wgmma_pin(int (&d)[n]) {
#pragma unroll
    for (int i = 0; i < n; i++) asm volatile("" : "+r"(d[i])::"memory");
}

// ---- registers of a warpgroup; kernels need __launch_bounds__ for them to count ----

template <int registers> static __device__ __forceinline__ void registers_give_back() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers> static __device__ __forceinline__ void registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
