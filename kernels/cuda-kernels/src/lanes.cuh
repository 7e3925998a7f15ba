// One or four neighbouring values at a time: the widest move that a row's width allows (LANES, a constant of the kernel).
#pragma once

#include "numbers.cuh"

template <int N> struct Run {
    float at[N];
};

static __device__ __forceinline__ void load(const float *from, Run<1> &run) { run.at[0] = *from; }
static __device__ __forceinline__ void load(const float *from, Run<4> &run) {
    const float4 four = *reinterpret_cast<const float4 *>(from);
    run.at[0] = four.x, run.at[1] = four.y, run.at[2] = four.z, run.at[3] = four.w;
}
static __device__ __forceinline__ void store(float *to, const Run<1> &run) { *to = run.at[0]; }
static __device__ __forceinline__ void store(float *to, const Run<4> &run) {
    *reinterpret_cast<float4 *>(to) = make_float4(run.at[0], run.at[1], run.at[2], run.at[3]);
}

// Stored numbers: what an element is and how it becomes f32.
struct Single {
    typedef float stored;
    static __device__ __forceinline__ float widen(float value) { return value; }
    static __device__ __forceinline__ float narrow(float value) { return value; }
};
struct HalfStored {
    typedef half_bits stored;
    static __device__ __forceinline__ float widen(half_bits bits) { return Half::to_float(bits); }
    // beyond the range a value is held at its end: an infinite key would turn a row of attention into NaN
    static __device__ __forceinline__ half_bits narrow(float value) {
        return Half::from_float(value > 65504.0f && value <= 3.4e38f ? 65504.0f
                                : value < -65504.0f && value >= -3.4e38f ? -65504.0f : value);
    }
};
struct Bf16Stored {
    typedef bf16_bits stored;
    static __device__ __forceinline__ float widen(bf16_bits bits) { return Bf16::to_float(bits); }
    static __device__ __forceinline__ bf16_bits narrow(float value) { return Bf16::from_float(value); }
};
