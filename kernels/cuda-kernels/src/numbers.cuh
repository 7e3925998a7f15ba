// 16-bit numbers without headers: stored as bits, computed in f32.
#pragma once

typedef unsigned short half_bits;   // IEEE binary16
typedef unsigned short bf16_bits;   // bfloat16
typedef unsigned int u32;
typedef unsigned long long u64;

#define NEGATIVE_INFINITY __int_as_float(0xff800000)

// Rows of K and V, weights and activations in 16 bit come as one of these; the kernels are templates over them.
struct Half {
    static __device__ __forceinline__ float to_float(unsigned short bits) {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
    static __device__ __forceinline__ unsigned short from_float(float value) {
        unsigned short bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
        return bits;
    }
    // `low` in the low 16 bits.
    static __device__ __forceinline__ u32 pack(float low, float high) {
        u32 pair;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
        return pair;
    }
};

struct Bf16 {
    static __device__ __forceinline__ float to_float(unsigned short bits) { return __int_as_float((u32)bits << 16); }
    static __device__ __forceinline__ unsigned short from_float(float value) {
        unsigned short bits;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
        return bits;
    }
    static __device__ __forceinline__ u32 pack(float low, float high) {
        u32 pair;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
        return pair;
    }
};

// 2^x; denormal results are 0.
static __device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
