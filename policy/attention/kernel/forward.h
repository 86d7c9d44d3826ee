// Attention with an online softmax (Dao et al. 2022, FlashAttention; Milakov and Gimelshein 2018).
#pragma once
#include "problem.h"

namespace gemsmith {

// One step over `count` keys: scores become weights, and what was summed so far is scaled to the new maximum.
inline void online_softmax(int64_t rows, int64_t count, int64_t width, float* scores, float* maximum, float* total,
                           float* out) {
    for (int64_t r = 0; r < rows; ++r) {
        float* row = scores + r * KEYS_AT_ONCE;
        Vec best = Vec{} + NEVER;
        for (int64_t i = 0; i < count; i += LANES) best = larger(best, load(row + i));
        const float highest = std::max(maximum[r], largest(best));
        if (highest == NEVER) {  // this row sees none of the keys so far
            std::fill(row, row + count, 0.0f);
            continue;
        }
        Vec added = {};
        for (int64_t i = 0; i < count; i += LANES) {
            const Vec weight = exponential(load(row + i) - highest);
            store(row + i, weight);
            added += weight;
        }
        if (highest != maximum[r]) {
            const float shrink = std::exp(maximum[r] - highest);
            for (int64_t d = 0; d < width; d += LANES) store(out + r * width + d, load(out + r * width + d) * shrink);
            total[r] *= shrink;
            maximum[r] = highest;
        }
        total[r] += sum(added);
    }
}

template <typename T>
struct Forward {
    Sizes s;
    Tensor<const T> query, key, value;
    Tensor<T> out;
    float* log_sum;  // [batch, head, query]: log of the sum of exponentials; +infinity where nothing is seen

    void run() const {
        const int64_t pairs = s.batches * s.groups, panels = s.packed_keys() / PANEL, size = s.packed_keys() * s.width;
        Buffer keys = floats(pairs * size), values = floats(pairs * size);
        const int64_t length = block_length(s);
        std::vector<std::vector<Block>> blocks;
        for (int64_t b = 0; b < s.batches; ++b) blocks.push_back(blocks_of(s, b, length));
        const int64_t each = static_cast<int64_t>(blocks.empty() ? 0 : blocks[0].size());
        const int64_t room = length * s.share() * (2 * s.width + KEYS_AT_ONCE + 2);
        Buffer space = floats(s.threads * room);
#pragma omp parallel num_threads(s.threads)
        {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < pairs * panels; ++i) {
                const int64_t pair = i / panels, b = pair / s.groups, g = pair % s.groups;
                pack_across(s, key, b, g, i % panels, keys.get() + pair * size);
                pack_along(s, value, b, g, i % panels, values.get() + pair * size);
            }
            float* own = space.get() + omp_get_thread_num() * room;
#pragma omp for schedule(dynamic)
            for (int64_t i = pairs * each - 1; i >= 0; --i) {  // the longest first
                const int64_t at = i / pairs, pair = i % pairs, b = pair / s.groups, g = pair % s.groups;
                block(b, g, blocks[b][at], keys.get() + pair * size, values.get() + pair * size, own);
            }
        }
    }

    void block(int64_t b, int64_t g, const Block& block, const float* keys, const float* values, float* space) const {
        const int64_t rows = block.count * s.share(), width = s.width;
        float *queries = space, *sum = queries + rows * width, *scores = sum + rows * width;
        float *maximum = scores + rows * KEYS_AT_ONCE, *total = maximum + rows;
        for (int64_t r = 0; r < rows; ++r) {
            const T* from = query.at(b, g * s.share() + r / block.count, block.first + r % block.count);
            for (int64_t d = 0; d < width; ++d) queries[r * width + d] = widen(from[d]) * s.scale;
        }
        std::fill(sum, sum + rows * width, 0.0f);
        std::fill(maximum, maximum + rows, NEVER);
        std::fill(total, total + rows, 0.0f);
        for (int64_t from = block.from; from < block.until; from += KEYS_AT_ONCE) {
            const int64_t left = (block.until - from + PANEL - 1) / PANEL * PANEL, count = std::min(left, KEYS_AT_ONCE);
            product<false>(rows, count, width, queries, width, 1, keys + from * width, width * PANEL, scores,
                           KEYS_AT_ONCE);
            mask(s, b, block, from, count, scores);
            online_softmax(rows, count, width, scores, maximum, total, sum);
            product<true>(rows, width, count, scores, KEYS_AT_ONCE, 1, values + from * PANEL, s.packed_keys() * PANEL,
                          sum, width);
        }
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t h = g * s.share() + r / block.count, t = block.first + r % block.count;
            const bool sees = total[r] > 0;
            const float share = sees ? 1.0f / total[r] : 0.0f;
            T* to = out.at(b, h, t);
            for (int64_t d = 0; d < width; ++d) narrow(sum[r * width + d] * share, to[d]);
            log_sum[(b * s.heads + h) * s.queries + t] =
                sees ? maximum[r] + std::log(total[r]) : std::numeric_limits<float>::infinity();
        }
    }
};

}  // namespace gemsmith
