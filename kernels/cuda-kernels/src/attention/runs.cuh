// Rows of a tile that belong to one sequence. A step's rows come from any sequences in any order; neighbours of one slot share tiles.
#pragma once
#include "cache.cuh"

// Rows [first, after) of a tile, all of one slot, and the keys that some and that all of them see: [begin, end), [all_begin, all_end).
struct Run {
    int first, after, slot, begin, end, all_begin, all_end;
    // The run that starts at row `at` of `count`; slots and ends (one past the last key that a row sees) are of the tile's rows.
    __device__ __forceinline__ Run(int at, int count, const int *slots, const int *ends, int window) : first(at), slot(slots[at]) {
        int least = ends[at], most = ends[at];
        for (after = at + 1; after < count && slots[after] == slot; after++) least = min(least, ends[after]), most = max(most, ends[after]);
        end = most, all_end = least;
        begin = window > 0 ? max(0, least - window) : 0, all_begin = window > 0 ? max(0, most - window) : 0;
    }
    // Whether some row does not see some of keys [column, column + columns); rows of other runs see none.
    __device__ __forceinline__ bool needs_mask(int column, int columns, int rows) const {
        return first > 0 || after < rows || column + columns > all_end || column < all_begin;
    }
    // Keys [begin, end) that a row of the tile sees of this run.
    __device__ __forceinline__ int end_of(int row, const int *ends) const { return row >= first && row < after ? ends[row] : 0; }
    __device__ __forceinline__ int begin_of(int row, const int *ends, int window) const {
        return window > 0 && row >= first && row < after ? ends[row] - window : 0;
    }
};
