// Weights and inputs in the order in which mma.sync takes them: no ldmatrix, no swizzle, one 16-byte load per lane and tile.
//   unit    64 columns of k; slices of k and stages of the pipeline are whole units
//   weights [16-output block][unit][tile][lane] uint4: 512 bytes are the A operand of 16 outputs x 16 (16 bit), 32 (int8), 64 (4 bit) columns
//   inputs  [8-row block][unit][load][lane] uint4: the B operands of two mma steps, zeros beyond the rows and columns there are
// k is summed in SLICES slices whose ends depend on k alone; the slices' sums are added in order. So an element has the same bits
// whether one warp computes one slice, one block all of them in turn, or one block one of them.
#pragma once
#include "mma.cuh"

#define SLICES 8

// Offsets of whole numbers in f16: 0x6400 | v is 1024 + v, and 0x6400 | 16 v is 1024 + 16 v.
static __device__ __forceinline__ u32 masked_or(u32 q, u32 mask) {
    u32 pair;
    asm("lop3.b32 %0, %1, %2, 0x64006400, 0xEA;" : "=r"(pair) : "r"(q), "r"(mask));
    return pair;
}
static __device__ __forceinline__ u32 minus_1032(u32 pair) {
    asm("sub.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0x64086408u));
    return pair;
}
static __device__ __forceinline__ u32 sixteenth_minus_72(u32 pair) {
    asm("fma.rn.f16x2 %0, %0, %1, %2;" : "+r"(pair) : "r"(0x2C002C00u), "r"(0xD480D480u));
    return pair;
}

static __device__ __forceinline__ u32 word(const uint4 &q, int i) { return i == 0 ? q.x : i == 1 ? q.y : i == 2 ? q.z : q.w; }

template <class Number> struct Weights16 {
    typedef float Sum;
    typedef Number Input;
    static const int TILES = 4, LOADS = 2, STEPS = 4;
    static const bool SCALED_BY_ROW = false;
    static __device__ __forceinline__ void operand(u32 (&a)[4], const uint4 (&w)[TILES], int step) {
        a[0] = w[step].x, a[1] = w[step].y, a[2] = w[step].z, a[3] = w[step].w;
    }
    static __device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        mma_16x8x16<Number>(c, a, b0, b1);
    }
};

struct Int8 {
    typedef int Sum;
    static const int TILES = 2, LOADS = 1, STEPS = 2;
    static const bool SCALED_BY_ROW = true;
    static __device__ __forceinline__ void operand(u32 (&a)[4], const uint4 (&w)[TILES], int step) {
        a[0] = w[step].x, a[1] = w[step].y, a[2] = w[step].z, a[3] = w[step].w;
    }
    static __device__ __forceinline__ void multiply(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        mma_16x8x32_s8(c, a, b0, b1);
    }
};

// Codes 0 to 15 become code - 8, exactly, in f16. Nibble n of word e: row g + 8(n & 1), column 16 e + 2t + (n >> 2) + 8((n >> 1) & 1).
struct Int4 {
    typedef float Sum;
    typedef Half Input;
    static const int TILES = 1, LOADS = 2, STEPS = 4;
    static const bool SCALED_BY_ROW = false;
    static __device__ __forceinline__ void operand(u32 (&a)[4], const uint4 (&w)[TILES], int step) {
        const u32 q = word(w[0], step), high = q >> 8;
        a[0] = minus_1032(masked_or(q, 0x000F000F));
        a[1] = sixteenth_minus_72(masked_or(q, 0x00F000F0));
        a[2] = minus_1032(masked_or(high, 0x000F000F));
        a[3] = sixteenth_minus_72(masked_or(high, 0x00F000F0));
    }
    static __device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        mma_16x8x16<Half>(c, a, b0, b1);
    }
};

typedef Weights16<Half> HalfTiles;
typedef Weights16<Bf16> Bf16Tiles;

// First unit of a slice; slices start where groups do.
static __device__ __forceinline__ int slice_start(int slice, int units, int granularity) {
    return (int)((long long)(units / granularity) * slice / SLICES) * granularity;
}

template <class Format> static __device__ __forceinline__ void load_weights(uint4 (&w)[Format::TILES], const uint4 *from) {
#pragma unroll
    for (int i = 0; i < Format::TILES; i++) w[i] = __ldg(from + i * 32);
}
