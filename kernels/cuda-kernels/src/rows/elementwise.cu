// Plain arithmetic on whole buffers and on rows.
#include "lanes.cuh"

#define EACH_RUN(i, n) \
    for (int i = (blockIdx.x * blockDim.x + threadIdx.x) * LANES; i < n; i += gridDim.x * blockDim.x * LANES)

// y += factor·x
extern "C" __global__ void add_scaled(const float *x, float factor, int n, float *y) {
    EACH_RUN(i, n) {
        Run<LANES> more, run;
        load(x + i, more), load(y + i, run);
        for (int l = 0; l < LANES; l++) run.at[l] += factor * more.at[l];
        store(y + i, run);
    }
}

// x [rows, cols] += bias [cols]
extern "C" __global__ void add_bias(const float *bias, int n, int cols, float *x) {
    EACH_RUN(i, n) {
        Run<LANES> more, run;
        load(bias + i % cols, more), load(x + i, run);
        for (int l = 0; l < LANES; l++) run.at[l] += more.at[l];
        store(x + i, run);
    }
}

// x *= factor
extern "C" __global__ void scale(float factor, int n, float *x) {
    EACH_RUN(i, n) {
        Run<LANES> run;
        load(x + i, run);
        for (int l = 0; l < LANES; l++) run.at[l] *= factor;
        store(x + i, run);
    }
}

// x = cap·tanh(x / cap)
extern "C" __global__ void soft_cap(float cap, int n, float *x) {
    EACH_RUN(i, n) {
        Run<LANES> run;
        load(x + i, run);
        for (int l = 0; l < LANES; l++) run.at[l] = cap * tanhf(run.at[l] / cap);
        store(x + i, run);
    }
}

// y [rows, width] = x [rows, stride] from column `start` on
extern "C" __global__ void take_columns(const float *x, int rows, int stride, int start, int width, float *y) {
    EACH_RUN(i, rows * width) {
        Run<LANES> run;
        load(x + (size_t)(i / width) * stride + start + i % width, run);
        store(y + i, run);
    }
}

// y [n, cols] = rows of x by number
extern "C" __global__ void gather_rows(const float *x, const u32 *rows, int n, int cols, float *y) {
    EACH_RUN(i, n * cols) {
        Run<LANES> run;
        load(x + (size_t)rows[i / cols] * cols + i % cols, run);
        store(y + i, run);
    }
}
