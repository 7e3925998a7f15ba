// What turns sums of codes into sums of values: nothing (16 bit), one scale per output and row (int8), or one scale per group of
// GROUP columns (4 bit) with a zero in code units, 8 where there are none: w = scale * (code - zero).
#pragma once
#include "tile.cuh"

#ifndef GROUP
#define GROUP 0
#endif
// Units that a slice must hold whole, and groups that start in a unit (half of one where a group is two units).
#define GRANULARITY (GROUP == 128 ? 2 : 1)

// A lane's view: `scales` and `zeros` ([group][16] of its block of outputs) at its first output in a first group; zeros null: all are 8.
struct GroupScales {
    const half_bits *scales, *zeros;
};

// Scale and (8 - zero) of this lane's two outputs in one group.
struct LaneScales {
    float scale[2], offset[2];
    bool has_zeros;
};

static __device__ __forceinline__ LaneScales lane_scales(const GroupScales &s, int group) {
    LaneScales r;
    r.has_zeros = s.zeros != 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        r.scale[i] = Half::to_float(__ldg(s.scales + group * 16 + 8 * i));
        r.offset[i] = r.has_zeros ? 8.0f - Half::to_float(__ldg(s.zeros + group * 16 + 8 * i)) : 0.0f;
    }
    return r;
}

// slice += scale * (group's sums + offset * sum of its inputs); the group's sums start again. `sums`, of [group][rows, padded to 8]: those of
// the inputs of the lane's two rows.
static __device__ __forceinline__ void close_group(float (&slice)[4], float (&group)[4], const LaneScales &l, const float *sums) {
    if (l.has_zeros) {
        const float2 x = __ldg((const float2 *)sums);
#pragma unroll
        for (int i = 0; i < 4; i++) group[i] = __fmaf_rn(l.offset[i >> 1], i & 1 ? x.y : x.x, group[i]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        slice[i] = __fmaf_rn(l.scale[i >> 1], group[i], slice[i]);
        group[i] = 0.0f;
    }
}
