// Inputs of packed products: x [rows][k] in stored order, zeros beyond the rows and columns there are.
#pragma once
#include "numbers.cuh"

// The value at stored position `column`; gather [64 units] names the column of x there, -1: zero.
static __device__ __forceinline__ float input(const float *x, const int *gather, int row, int column, int rows, int k, int units) {
    if (row >= rows || column >= 64 * units) return 0.0f;
    const int from = gather ? gather[column] : column;
    return from >= 0 && from < k ? x[(size_t)row * k + from] : 0.0f;
}
