// Matrices of 32-bit and 16-bit numbers read as f32, one number or 16 bytes at a time.
#pragma once
#include "numbers.cuh"

struct F32 {
    typedef float Stored;
    static __device__ __forceinline__ float to_float(float value) { return value; }
    static __device__ __forceinline__ float from_float(float value) { return value; }
};
struct F16 : Half {
    typedef unsigned short Stored;
};
struct BFloat16 : Bf16 {
    typedef unsigned short Stored;
};

template <int count> struct Values {
    float v[count];
};

// `count` numbers: 1, or a multiple of those in 16 bytes, then at a multiple of 16 bytes.
template <class Number, int count> static __device__ __forceinline__ Values<count> load_values(const typename Number::Stored *from) {
    Values<count> r;
    const int per_load = 16 / sizeof(typename Number::Stored);
    if (count == 1) {
        r.v[0] = Number::to_float(__ldg(from));
        return r;
    }
#pragma unroll
    for (int at = 0; at < count; at += per_load) {
        union {
            uint4 bits;
            typename Number::Stored stored[per_load];
        } q;
        q.bits = __ldg((const uint4 *)(from + at));
#pragma unroll
        for (int i = 0; i < per_load && at + i < count; i++) r.v[at + i] = Number::to_float(q.stored[i]);
    }
    return r;
}

// Two neighbouring 16-bit results, as one word where both are there and the row starts on one.
template <class Number>
static __device__ __forceinline__ void store_pair(unsigned short *c, int row, int column, int rows, int columns, float low, float high) {
    if (row >= rows || column >= columns) return;
    unsigned short *to = c + (size_t)row * columns + column;
    if ((columns & 1) == 0) {
        *(u32 *)to = Number::pack(low, high);
    } else {
        *to = Number::from_float(low);
        if (column + 1 < columns) to[1] = Number::from_float(high);
    }
}
