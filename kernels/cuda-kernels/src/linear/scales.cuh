// What turns sums of codes into sums of values: nothing (16 bit), one scale per output and row (int8), or one scale per group of
// GROUP columns (4 bit) with, where ZEROS is 1, a zero in code units: w = scale * (code - zero).
#pragma once
#include "tile.cuh"

#ifndef GROUP
#define GROUP 0
#define ZEROS 0
#endif
// Units that a slice must hold whole, and groups that start in a unit (half of one where a group is two units).
#define GRANULARITY (GROUP == 128 ? 2 : 1)

struct GroupScales {
    const half_bits *scales, *zeros;   // [16-output block][group][16]
    const float *sums;                 // [group][rows, padded to 8]: sums of the inputs that the kernel multiplies by
    int groups, padded_rows;
};

// Scale and (8 - zero) of this lane's two outputs in one group.
struct LaneScales {
    float scale[2], offset[2];
};

static __device__ __forceinline__ LaneScales lane_scales(const GroupScales &s, int block, int group) {
    LaneScales r;
    const size_t at = ((size_t)block * s.groups + group) * 16 + ((threadIdx.x & 31) >> 2);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r.scale[i] = Half::to_float(s.scales[at + 8 * i]);
        r.offset[i] = ZEROS ? 8.0f - Half::to_float(s.zeros[at + 8 * i]) : 0.0f;
    }
    return r;
}

// slice += scale * (group's sums + offset * sum of its inputs); the group's sums start again.
static __device__ __forceinline__ void close_group(float (&slice)[4], float (&group)[4], const LaneScales &l, const GroupScales &s,
                                                   int index, int row_block) {
    float2 x = make_float2(0.0f, 0.0f);
    if (ZEROS) x = *(const float2 *)(s.sums + (size_t)index * s.padded_rows + row_block * 8 + 2 * (threadIdx.x & 3));
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = group[i];
        if (ZEROS) sum = __fmaf_rn(l.offset[i >> 1], i & 1 ? x.y : x.x, sum);
        slice[i] = __fmaf_rn(l.scale[i >> 1], sum, slice[i]);
        group[i] = 0.0f;
    }
}
