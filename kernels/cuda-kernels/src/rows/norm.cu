// RMSNorm and LayerNorm of groups of `width` features, one block per group; a gain covers a group, or `gain_groups` of them.
#include "lanes.cuh"
#include "warp.cuh"

static __device__ __forceinline__ float sum_of_squares(const float *x, float mean, int width, float *scratch) {
    float sum = 0.0f;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        Run<LANES> run;
        load(x + at, run);
        for (int i = 0; i < LANES; i++) sum += (run.at[i] - mean) * (run.at[i] - mean);
    }
    return block_sum(sum, scratch);
}

static __device__ __forceinline__ void scaled(const float *x, float mean, float factor, const float *gain,
                                              const float *bias, int width, float *y) {
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        Run<LANES> run, g;
        load(x + at, run), load(gain + at, g);
        for (int i = 0; i < LANES; i++) run.at[i] = (run.at[i] - mean) * factor * g.at[i];
        if (bias) {
            load(bias + at, g);
            for (int i = 0; i < LANES; i++) run.at[i] += g.at[i];
        }
        store(y + at, run);
    }
}

// x and y may be the same rows: a thread reads what it alone writes.
extern "C" __global__ void rms_norm(const float *x, const float *gain, int width, int gain_groups, float eps, float *y) {
    __shared__ float scratch[32];
    const size_t at = (size_t)blockIdx.x * width;
    const float mean_square = sum_of_squares(x + at, 0.0f, width, scratch) / width;
    scaled(x + at, 0.0f, 1.0f / sqrtf(mean_square + eps), gain + (blockIdx.x % gain_groups) * width, 0, width, y + at);
}

extern "C" __global__ void layer_norm(const float *x, const float *gain, const float *bias, int width, int gain_groups,
                                      float eps, float *y) {
    __shared__ float scratch[32];
    const size_t at = (size_t)blockIdx.x * width;
    const int of = (blockIdx.x % gain_groups) * width;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += x[at + i];
    const float mean = block_sum(sum, scratch) / width;
    const float variance = sum_of_squares(x + at, mean, width, scratch) / width;
    scaled(x + at, mean, 1.0f / sqrtf(variance + eps), gain + of, bias + of, width, y + at);
}

// x += factor·added, then y = RMSNorm(x): the residual stream is read once instead of twice.
extern "C" __global__ void add_rms_norm(const float *added, float factor, const float *gain, int width, float eps, float *x,
                                        float *y) {
    __shared__ float scratch[32];
    x += (size_t)blockIdx.x * width, y += (size_t)blockIdx.x * width, added += (size_t)blockIdx.x * width;
    float sum = 0.0f;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        Run<LANES> run, more;
        load(x + at, run), load(added + at, more);
        for (int i = 0; i < LANES; i++) run.at[i] += factor * more.at[i], sum += run.at[i] * run.at[i];
        store(x + at, run);
    }
    const float mean_square = block_sum(sum, scratch) / width;
    scaled(x, 0.0f, 1.0f / sqrtf(mean_square + eps), gain, 0, width, y);
}
