// Keys and values in a cache: elements of 32 or 16 bits, contiguous per sequence or in pages. Eight elements are one read of 16 bytes
// (two of f32), so head dims are multiples of 8.
#pragma once
#include "numbers.cuh"

#define LOG2_E 1.4426950408889634f

struct Single {};

template <class Element> struct Eight;
template <> struct Eight<Single> {
    float4 low, high;
    __device__ __forceinline__ void load(const void *base, size_t element) {
        const float4 *from = (const float4 *)((const float *)base + element);
        low = from[0], high = from[1];
    }
    __device__ __forceinline__ void unpack(float (&x)[8]) const {
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
        x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    }
};
template <class Number> struct EightOf16 {
    uint4 words;
    __device__ __forceinline__ void load(const void *base, size_t element) {
        words = *(const uint4 *)((const unsigned short *)base + element);
    }
    __device__ __forceinline__ void unpack(float (&x)[8]) const {
        const u32 each[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = Number::to_float((unsigned short)(each[i] & 0xffff));
            x[2 * i + 1] = Number::to_float((unsigned short)(each[i] >> 16));
        }
    }
};
template <> struct Eight<Half> : EightOf16<Half> {};
template <> struct Eight<Bf16> : EightOf16<Bf16> {};

// Where a sequence's rows of one kv head lie: contiguous as [slot][kv_heads][capacity][dim] (`pages` null, `page_tokens` the
// capacity), or in pages [page][kv_heads][page_tokens][dim] named by pages[slot][max_pages].
struct Cache {
    const int *pages;
    int slot, kv_heads, kv_head, page_tokens, max_pages, dim;
    // Element that starts the row of `token`.
    __device__ __forceinline__ size_t row(int token) const {
        if (!pages) return ((size_t)(slot * kv_heads + kv_head) * page_tokens + token) * dim;
        const int page = pages[(size_t)slot * max_pages + token / page_tokens];
        return ((size_t)((size_t)page * kv_heads + kv_head) * page_tokens + token % page_tokens) * dim;
    }
};

// Exponent to base 2 of a score: scaled, and held between ±softcap where that is above 0.
static __device__ __forceinline__ float exponent_of(float dot, float scale, float softcap) {
    const float score = dot * scale;
    return LOG2_E * (softcap > 0.0f ? softcap * tanhf(__fdividef(score, softcap)) : score);
}

// Tokens [begin, end) of a split: equal parts of what the sequence's rows see. The count of splits that have any.
struct Split {
    int begin, end, count;
    __device__ __forceinline__ Split(int length, int q_rows, int window, int split, int splits) {
        const int first = window > 0 ? max(0, length - q_rows + 1 - window) : 0, span = max(0, length - first);
        const int part = (((span + splits - 1) / splits) + 15) & ~15;
        count = part > 0 ? (span + part - 1) / part : 0;
        begin = first + split * part, end = min(length, begin + part);
    }
};
