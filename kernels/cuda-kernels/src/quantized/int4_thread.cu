// What: y = x W^T with 4-bit weights, one thread per element.
// Source: none; the first form that comes to mind.
// Shapes: codes [n][k / 8] words, the lowest nibble first, scales [n][k / group] f16, x [rows][k] f32, y [rows][n] f32. Block: 256 outputs; grid (n / 256, rows).
// Method: 1. codes are taken out of their words one by one, along k. 2. sums are scaled group by group.
// Exactness: f32 sums of x * (code - 8). Cost: weights once per row, uncoalesced; about 8 instructions per weight.
// Not handled: k must be a multiple of the group, the group of 8.
#include "numbers.cuh"

extern "C" __global__ void __launch_bounds__(256)
int4_thread(const u32 *codes, const half_bits *scales, const float *x, float *y, int rows, int n, int k, int group) {
    const int output = blockIdx.x * 256 + threadIdx.x, row = blockIdx.y;
    if (output >= n || row >= rows) return;
    float total = 0.0f;
    for (int first = 0; first < k; first += group) {
        float sum = 0.0f;
        for (int i = first; i < first + group; i++) {
            const u32 code = codes[(size_t)output * (k / 8) + i / 8] >> (4 * (i & 7)) & 15;
            sum = __fmaf_rn((float)code - 8.0f, x[(size_t)row * k + i], sum);
        }
        total = __fmaf_rn(Half::to_float(scales[(size_t)output * (k / group) + first / group]), sum, total);
    }
    y[(size_t)row * n + output] = total;
}
