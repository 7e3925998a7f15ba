// Results from registers through swizzled shared memory to a tensor, in the background.
#pragma once
#include "hopper.cuh"

// Four 8x8 tiles of 16-bit values; lane l gives the address of row l % 8 of tile l / 8.
static __device__ __forceinline__ void stmatrix_x4(u32 address, u32 r0, u32 r1, u32 r2, u32 r3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(r0), "r"(r1), "r"(r2), "r"(r3) : "memory");
}
// A box to the tensor, by one thread; what lies outside is dropped. Part of the thread's open group.
static __device__ __forceinline__ void tensor_store_2d(const TensorMap *map, u32 from, int x0, int x1) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map), "r"(from), "r"(x0), "r"(x1) : "memory");
}
static __device__ __forceinline__ void tensor_store_5d(const TensorMap *map, u32 from, int x0, int x1, int x2, int x3, int x4) {
    asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];"
                 ::"l"(map), "r"(from), "r"(x0), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
}
static __device__ __forceinline__ void tensor_store_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most `pending` of this thread's groups still read shared memory.
template <int pending> static __device__ __forceinline__ void tensor_store_wait() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}

// Address of 16-byte piece `piece` of row `row` in a panel of 128-byte rows under the 128-byte swizzle.
static __device__ __forceinline__ u32 panel_place(u32 panel, int row, int piece) { return panel + row * 128 + ((piece ^ (row & 7)) << 4); }
