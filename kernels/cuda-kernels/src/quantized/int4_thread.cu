// What: y = x W^T with 4-bit weights, one thread per element.
// Source: none; the first form that comes to mind.
// Shapes: codes, scales, zeros as in int4_rows.cuh, x [rows][k] f32, y [rows][n] f32. Block: 256 outputs; grid (n / 256, rows).
// Method: 1. codes are taken out of their words one by one, along k. 2. sums are scaled group by group.
// Exactness: f32 sums of x * (code - zero). Cost: weights once per row, uncoalesced; about 8 instructions per weight.
// Not handled: k must be a multiple of the group, the group of 8.
#include "int4_rows.cuh"

extern "C" __global__ void __launch_bounds__(256)
int4_thread(const u32 *codes, const half_bits *scales, const half_bits *zeros, const float *x, float *y, int rows, int n, int k, int group) {
    const int output = blockIdx.x * 256 + threadIdx.x, row = blockIdx.y;
    if (output >= n || row >= rows) return;
    float total = 0.0f;
    for (int first = 0; first < k; first += group) {
        const RowScales s = row_scales(scales, zeros, (size_t)output * (k / group) + first / group);
        float sum = 0.0f;
        for (int i = first; i < first + group; i++) {
            const u32 code = codes[(size_t)output * (k / 8) + i / 8] >> (4 * (i & 7)) & 15;
            sum = __fmaf_rn((float)code - s.zero, x[(size_t)row * k + i], sum);
        }
        total = __fmaf_rn(s.scale, sum, total);
    }
    y[(size_t)row * n + output] = total;
}
