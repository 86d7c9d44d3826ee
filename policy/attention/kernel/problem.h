// What both passes share: the tensors, float32 and bfloat16 elements, packing of keys and values, blocks of queries.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include <omp.h>

#include "simd.h"

namespace gemsmith {

struct BFloat16 {
    uint16_t bits;
};
inline float widen(float value) { return value; }
inline float widen(BFloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}
inline void narrow(float value, float& to) { to = value; }
inline void narrow(float value, BFloat16& to) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) {  // not a number
        to.bits = 0x7fc0;
        return;
    }
    to.bits = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Strided [batch, head, token, feature]; features are neighbours.
template <typename T>
struct Tensor {
    T* data;
    int64_t batch, head, token;
    T* at(int64_t b, int64_t h, int64_t t) const { return data + b * batch + h * head + t * token; }
};

// Query t of batch b sees the keys lo[b, t] <= key < hi[b, t]; none where hi <= lo.
struct Sizes {
    int64_t batches, heads, groups, queries, keys, width;  // groups: heads of keys and values; width: of a head
    float scale;
    const int32_t *lo, *hi;
    int threads;
    int64_t share() const { return heads / groups; }  // query heads that share keys and values
    int64_t packed_keys() const { return (keys + PANEL - 1) / PANEL * PANEL; }
};

using Buffer = std::unique_ptr<float[], decltype(&std::free)>;
inline Buffer floats(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
    float* data = static_cast<float*>(std::aligned_alloc(64, bytes ? bytes : 64));
    if (data == nullptr) throw std::bad_alloc();
    return Buffer(data, &std::free);
}

constexpr int64_t KEYS_AT_ONCE = 64;
static_assert(KEYS_AT_ONCE % PANEL == 0, "a step over keys is made of whole panels");

// A block of neighbouring queries of one batch row, for all query heads of one group at once: keys are read once for
// them all, and never expanded. Row r of a block is query `first + r % count` of head `r / count` of the group.
struct Block {
    int64_t first, count, from, until;  // from, until: the keys that some query of the block sees; from is a multiple of PANEL
    int64_t steps() const { return until <= from ? 0 : (until - from + KEYS_AT_ONCE - 1) / KEYS_AT_ONCE; }
};

inline int64_t longest_span(const Sizes& s) {
    int64_t longest = 0;
    for (int64_t i = 0; i < s.batches * s.queries; ++i) longest = std::max<int64_t>(longest, s.hi[i] - s.lo[i]);
    return longest;
}

// 128 rows fill the second-level cache; narrow windows take shorter blocks, since a block reads window + block keys.
inline int64_t block_length(const Sizes& s) {
    const int64_t most = std::max<int64_t>(128 / s.share(), 16);
    return std::max<int64_t>(16, std::min<int64_t>(most, longest_span(s)));
}

inline std::vector<Block> blocks_of(const Sizes& s, int64_t batch, int64_t length) {
    std::vector<Block> blocks;
    for (int64_t first = 0; first < s.queries; first += length) {
        Block block{first, std::min(length, s.queries - first), s.keys, 0};
        for (int64_t t = first; t < first + block.count; ++t) {
            const int64_t lo = s.lo[batch * s.queries + t], hi = s.hi[batch * s.queries + t];
            if (hi <= lo) continue;
            block.from = std::min(block.from, lo);
            block.until = std::max(block.until, hi);
        }
        block.from = block.from / PANEL * PANEL;
        blocks.push_back(block);
    }
    return blocks;
}

// [keys / PANEL][width][PANEL]: for products that contract over features.
template <typename T>
void pack_across(const Sizes& s, const Tensor<const T>& from, int64_t b, int64_t g, int64_t panel, float* packed) {
    float* to = packed + panel * s.width * PANEL;
    for (int64_t lane = 0; lane < PANEL; ++lane) {
        const int64_t key = panel * PANEL + lane;
        const T* row = key < s.keys ? from.at(b, g, key) : nullptr;
        for (int64_t d = 0; d < s.width; ++d) to[d * PANEL + lane] = row ? widen(row[d]) : 0.0f;
    }
}

// [width / PANEL][keys][PANEL]: for products that contract over keys.
template <typename T>
void pack_along(const Sizes& s, const Tensor<const T>& from, int64_t b, int64_t g, int64_t panel, float* packed) {
    for (int64_t key = panel * PANEL; key < (panel + 1) * PANEL; ++key) {
        const T* row = key < s.keys ? from.at(b, g, key) : nullptr;
        for (int64_t d = 0; d < s.width; ++d)
            packed[(d / PANEL * s.packed_keys() + key) * PANEL + d % PANEL] = row ? widen(row[d]) : 0.0f;
    }
}

// What a query may not see becomes minus infinity. `count` keys from `key` on.
inline void mask(const Sizes& s, int64_t b, const Block& block, int64_t key, int64_t count, float* scores) {
    for (int64_t t = 0; t < block.count; ++t) {
        const int64_t at = b * s.queries + block.first + t;
        const int64_t begin = std::clamp<int64_t>(s.lo[at] - key, 0, count);
        const int64_t end = std::clamp<int64_t>(s.hi[at] - key, begin, count);
        if (begin == 0 && end == count) continue;
        for (int64_t h = 0; h < s.share(); ++h) {
            float* row = scores + (h * block.count + t) * KEYS_AT_ONCE;
            std::fill(row, row + begin, NEVER);
            std::fill(row + end, row + count, NEVER);
        }
    }
}

}  // namespace gemsmith
