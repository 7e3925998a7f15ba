// 4-bit weights row by row: codes [n][k / 8] words, the lowest nibble first; scales and zeros [n][k / group] f16.
#pragma once
#include "numbers.cuh"

struct RowScales {
    float scale, zero;
};
static __device__ __forceinline__ RowScales row_scales(const half_bits *scales, const half_bits *zeros, size_t at) {
    return {Half::to_float(scales[at]), zeros ? Half::to_float(zeros[at]) : 8.0f};
}
