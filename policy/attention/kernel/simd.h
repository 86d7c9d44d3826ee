// Vectors of float, and the one matrix product that everything is made of: a row tile times a packed panel.
//
// GCC's vector extensions rather than intrinsics, so that one source serves AVX2, AVX-512 and plain 128-bit machines.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace gemsmith {

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int ROWS = 12;  // accumulators of a row tile: 12 x 2 of 32 registers
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr int ROWS = 6;  // 6 x 2 of 16 registers
#else
constexpr int LANES = 4;
constexpr int ROWS = 6;
#endif
constexpr int PANEL = 2 * LANES;  // columns of a packed panel

typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4)));  // aligned(4): loads from any float
typedef int32_t Int __attribute__((vector_size(LANES * 4), aligned(4)));

constexpr float NEVER = -std::numeric_limits<float>::infinity();

inline Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<Vec*>(to) = value; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

inline float sum(Vec value) {
    float total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += value[lane];
    return total;
}

inline float largest(Vec value) {
    float best = value[0];
    for (int lane = 1; lane < LANES; ++lane) best = value[lane] > best ? value[lane] : best;
    return best;
}

// e^x for x <= 0, and exactly 0 below -87: 2^n times a polynomial of degree 6, relative error about 2e-7.
inline Vec exponential(Vec x) {
    const Vec nothing = {};
    const Vec kept = larger(x, nothing - 87.0f);
    const Vec magic = nothing + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vec n = (kept * 1.44269504088896341f + magic) - magic;
    const Vec r = (kept - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
    Vec p = nothing + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Int power = __builtin_convertvector(n, Int);
    Vec scale;
    const Int bits = (power + 127) << 23;
    std::memcpy(&scale, &bits, sizeof scale);
    return x < -87.0f ? nothing : p * scale;
}

// C[COUNT, PANEL] = (or +=) A[COUNT, depth] . B[depth, PANEL]. A's element (r, i) is at a[r * row + i * column].
template <int COUNT, bool ADD>
inline __attribute__((always_inline)) void tile(
    const float* a, int64_t row, int64_t column, const float* b, int64_t depth, float* c, int64_t c_row) {
    Vec sum[COUNT][2];
#pragma GCC unroll 16
    for (int r = 0; r < COUNT; ++r) sum[r][0] = sum[r][1] = Vec{};
#pragma GCC unroll 2
    for (int64_t i = 0; i < depth; ++i) {
        const Vec left = load(b), right = load(b + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < COUNT; ++r) {
            const float factor = a[r * row];
            sum[r][0] += factor * left;
            sum[r][1] += factor * right;
        }
        a += column;
        b += PANEL;
    }
#pragma GCC unroll 16
    for (int r = 0; r < COUNT; ++r) {
        float* out = c + r * c_row;
        store(out, ADD ? load(out) + sum[r][0] : sum[r][0]);
        store(out + LANES, ADD ? load(out + LANES) + sum[r][1] : sum[r][1]);
    }
}

template <bool ADD, int COUNT>
inline void last_tile(int64_t count, const float* a, int64_t row, int64_t column, const float* b, int64_t depth,
                      float* c, int64_t c_row) {
    if constexpr (COUNT > 0) {
        if (count == COUNT) return tile<COUNT, ADD>(a, row, column, b, depth, c, c_row);
        last_tile<ADD, COUNT - 1>(count, a, row, column, b, depth, c, c_row);
    }
}

// C[rows, PANEL] = (or +=) A[rows, depth] . B[depth, PANEL].
template <bool ADD>
inline void column(int64_t rows, const float* a, int64_t row, int64_t step, const float* b, int64_t depth, float* c,
                   int64_t c_row) {
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS) tile<ROWS, ADD>(a + r * row, row, step, b, depth, c + r * c_row, c_row);
    last_tile<ADD, ROWS - 1>(rows - r, a + r * row, row, step, b, depth, c + r * c_row, c_row);
}

// C[rows, columns] = (or +=) A[rows, depth] . B, where panel p of B starts at b + p * b_panel.
template <bool ADD>
inline void product(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t row, int64_t step,
                    const float* b, int64_t b_panel, float* c, int64_t c_row) {
    for (int64_t first = 0; first < columns; first += PANEL)
        column<ADD>(rows, a, row, step, b + first / PANEL * b_panel, depth, c + first, c_row);
}

}  // namespace gemsmith
