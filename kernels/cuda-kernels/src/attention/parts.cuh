// Where a row's keys are cut when several blocks share them: at fixed places of the cache, so that rows of one sequence which stand
// near each other have the same cuts and share tiles.
#pragma once

#define PART_UNIT 64

// A row that sees keys [begin, end) has parts first … first + count - 1 of `size` keys; part p leaves its results in place p % splits.
struct Parts {
    int begin, end, size, first, count;
    __device__ __forceinline__ Parts(int row_end, int window, int splits) : begin(0), end(max(0, row_end)) {
        if (window > 0) begin = max(0, end - window);
        size = 1 << 30;
        if (splits > 1) {
            // keys that do not start where a part does touch one part more
            const int by = begin > 0 ? splits - 1 : splits, least = max(1, (end - begin + by - 1) / by);
            // three leading bits: the size changes seldom while a sequence grows, and no part is more than a quarter too long
            const int unit = max(PART_UNIT, (1 << (31 - __clz(least))) / 4);
            size = (least + unit - 1) / unit * unit;
        }
        first = begin / size, count = end > begin ? (end - 1) / size - first + 1 : 0;
    }
};
