// Activations of an MLP, alone or times the second half of a row.
#include "lanes.cuh"

#define SILU 0
#define GELU 1
#define GELU_TANH 2
#define RELU 3

static __device__ __forceinline__ float activation(float x) {
#if KIND == SILU
    return x / (1.0f + expf(-x));
#elif KIND == GELU
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
#elif KIND == GELU_TANH
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
#else
    return fmaxf(x, 0.0f);
#endif
}

// y [rows, width] = activation(x[:, ..width]) · x[:, width..]; a thread makes LANES neighbours.
extern "C" __global__ void activate_mul(const float *x, int rows, int width, float *y) {
    const int runs = width / LANES, all = rows * runs;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
        const int row = i / runs, at = i % runs * LANES;
        Run<LANES> gate, up;
        load(x + (size_t)row * 2 * width + at, gate), load(x + (size_t)row * 2 * width + width + at, up);
        for (int l = 0; l < LANES; l++) gate.at[l] = activation(gate.at[l]) * up.at[l];
        store(y + (size_t)row * width + at, gate);
    }
}

extern "C" __global__ void activate(int n, float *x) {
    for (int i = (blockIdx.x * blockDim.x + threadIdx.x) * LANES; i < n; i += gridDim.x * blockDim.x * LANES) {
        Run<LANES> run;
        load(x + i, run);
        for (int l = 0; l < LANES; l++) run.at[l] = activation(run.at[l]);
        store(x + i, run);
    }
}
