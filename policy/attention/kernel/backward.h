// The backward pass: weights are computed again from the scores and the kept log-sums (Dao et al. 2022, Algorithm 4).
#pragma once
#include "problem.h"

namespace gemsmith {

template <typename T>
struct Backward {
    Sizes s;
    Tensor<const T> query, key, value, out, grad;
    const float* log_sum;
    Tensor<T> query_grad, key_grad, value_grad;

    // Queries that one thread goes through, and its own sums for the keys that they see. The sums are added up in a
    // fixed order afterwards, so that the same number of threads gives the same bits.
    struct Part {
        int64_t batch, group, begin, end, from, until;
        Buffer key_grad, value_grad;
    };
    struct Packed {
        Buffer keys_across, keys_along, values_across;
        int64_t size;
    };

    void run() const {
        const int64_t pairs = s.batches * s.groups, panels = s.packed_keys() / PANEL, size = s.packed_keys() * s.width;
        const Packed packed{floats(pairs * size), floats(pairs * size), floats(pairs * size), size};
        const int64_t length = block_length(s);
        std::vector<std::vector<Block>> blocks;
        for (int64_t b = 0; b < s.batches; ++b) blocks.push_back(blocks_of(s, b, length));
        std::vector<Part> parts = divide(blocks);
        const int64_t number = static_cast<int64_t>(parts.size());
        const int64_t room = length * s.share() * (5 * s.width + 2 * KEYS_AT_ONCE + 2);
        Buffer space = floats(s.threads * room);
#pragma omp parallel num_threads(s.threads)
        {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < pairs * panels; ++i) {
                const int64_t pair = i / panels, b = pair / s.groups, g = pair % s.groups;
                pack_across(s, key, b, g, i % panels, packed.keys_across.get() + pair * size);
                pack_along(s, key, b, g, i % panels, packed.keys_along.get() + pair * size);
                pack_across(s, value, b, g, i % panels, packed.values_across.get() + pair * size);
            }
            float* own = space.get() + omp_get_thread_num() * room;
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < number; ++i) {
                Part& part = parts[i];
                std::fill(part.key_grad.get(), part.key_grad.get() + (part.until - part.from) * s.width, 0.0f);
                std::fill(part.value_grad.get(), part.value_grad.get() + (part.until - part.from) * s.width, 0.0f);
                for (int64_t at = part.begin; at < part.end; ++at)
                    block(part, blocks[part.batch][at], packed, own);
            }
#pragma omp for schedule(static)
            for (int64_t i = 0; i < pairs * s.keys; ++i) add_up(parts, i / s.keys, i % s.keys);
        }
    }

    // One part for each (batch row, group), or as many as there are threads, of equal work, where those are too few.
    std::vector<Part> divide(const std::vector<std::vector<Block>>& blocks) const {
        const int64_t pairs = s.batches * s.groups;
        const bool even = pairs % s.threads == 0 || pairs >= 4 * s.threads;
        const int64_t pieces = even ? 1 : s.threads;
        std::vector<Part> parts;
        for (int64_t pair = 0; pair < pairs; ++pair) {
            const std::vector<Block>& row = blocks[pair / s.groups];
            int64_t work = 0, done = 0, begin = 0;
            for (const Block& block : row) work += block.steps();
            for (int64_t piece = 0; piece < pieces; ++piece) {
                int64_t end = begin, from = s.packed_keys(), until = 0;
                while (end < static_cast<int64_t>(row.size()) && (piece + 1 == pieces || done * pieces < work * (piece + 1))) {
                    done += row[end].steps();
                    if (row[end].steps()) {
                        from = std::min(from, row[end].from);
                        until = std::max(until, row[end].until);
                    }
                    ++end;
                }
                until = std::min((until + PANEL - 1) / PANEL * PANEL, s.packed_keys());
                from = std::min(from, until);
                const int64_t count = (until - from) * s.width;
                parts.push_back({pair / s.groups, pair % s.groups, begin, end, from, until, floats(count), floats(count)});
                begin = end;
            }
        }
        return parts;
    }

    void block(Part& part, const Block& block, const Packed& packed, float* space) const {
        const int64_t rows = block.count * s.share(), width = s.width, b = part.batch;
        const int64_t offset = (b * s.groups + part.group) * packed.size;
        float *queries = space, *grads = queries + rows * width, *queries_along = grads + rows * width;
        float *grads_along = queries_along + rows * width, *sum = grads_along + rows * width;
        float *weights = sum + rows * width, *slopes = weights + rows * KEYS_AT_ONCE;
        float *delta = slopes + rows * KEYS_AT_ONCE, *logs = delta + rows;
        gather(part, block, queries, grads, queries_along, grads_along, delta, logs);
        std::fill(sum, sum + rows * width, 0.0f);
        for (int64_t from = block.from; from < block.until; from += KEYS_AT_ONCE) {
            const int64_t left = (block.until - from + PANEL - 1) / PANEL * PANEL, count = std::min(left, KEYS_AT_ONCE);
            product<false>(rows, count, width, queries, width, 1, packed.keys_across.get() + offset + from * width,
                           width * PANEL, weights, KEYS_AT_ONCE);
            mask(s, b, block, from, count, weights);
            product<false>(rows, count, width, grads, width, 1, packed.values_across.get() + offset + from * width,
                           width * PANEL, slopes, KEYS_AT_ONCE);
            for (int64_t r = 0; r < rows; ++r) {
                float *weight = weights + r * KEYS_AT_ONCE, *slope = slopes + r * KEYS_AT_ONCE;
                for (int64_t i = 0; i < count; i += LANES) {
                    const Vec p = exponential(load(weight + i) - logs[r]);
                    store(weight + i, p);
                    store(slope + i, p * (load(slope + i) - delta[r]));
                }
            }
            float* value_sum = part.value_grad.get() + (from - part.from) * width;
            float* key_sum = part.key_grad.get() + (from - part.from) * width;
            product<true>(count, width, rows, weights, 1, KEYS_AT_ONCE, grads_along, rows * PANEL, value_sum, width);
            product<true>(count, width, rows, slopes, 1, KEYS_AT_ONCE, queries_along, rows * PANEL, key_sum, width);
            product<true>(rows, width, count, slopes, KEYS_AT_ONCE, 1, packed.keys_along.get() + offset + from * PANEL,
                          s.packed_keys() * PANEL, sum, width);
        }
        for (int64_t r = 0; r < rows; ++r) {
            T* to = query_grad.at(b, part.group * s.share() + r / block.count, block.first + r % block.count);
            for (int64_t d = 0; d < width; ++d) narrow(sum[r * width + d] * s.scale, to[d]);
        }
    }

    // Queries (scaled) and output gradients, each by rows and by panels; delta = sum of gradient times output.
    void gather(const Part& part, const Block& block, float* queries, float* grads, float* queries_along,
                float* grads_along, float* delta, float* logs) const {
        const int64_t rows = block.count * s.share(), width = s.width, b = part.batch;
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t h = part.group * s.share() + r / block.count, t = block.first + r % block.count;
            const T *q = query.at(b, h, t), *g = grad.at(b, h, t), *o = out.at(b, h, t);
            float total = 0;
            for (int64_t d = 0; d < width; ++d) {
                const int64_t along = (d / PANEL * rows + r) * PANEL + d % PANEL;
                const float slope = widen(g[d]);
                queries[r * width + d] = queries_along[along] = widen(q[d]) * s.scale;
                grads[r * width + d] = grads_along[along] = slope;
                total += slope * widen(o[d]);
            }
            delta[r] = total;
            logs[r] = log_sum[(b * s.heads + h) * s.queries + t];
        }
    }

    void add_up(const std::vector<Part>& parts, int64_t pair, int64_t at) const {
        const int64_t b = pair / s.groups, g = pair % s.groups;
        T *to_key = key_grad.at(b, g, at), *to_value = value_grad.at(b, g, at);
        const int64_t pieces = static_cast<int64_t>(parts.size()) / (s.batches * s.groups);
        for (int64_t d = 0; d < s.width; ++d) {
            float of_key = 0, of_value = 0;
            for (int64_t i = pair * pieces; i < (pair + 1) * pieces; ++i) {
                const Part& part = parts[i];
                if (at < part.from || at >= part.until) continue;
                of_key += part.key_grad[(at - part.from) * s.width + d];
                of_value += part.value_grad[(at - part.from) * s.width + d];
            }
            narrow(of_key, to_key[d]);
            narrow(of_value, to_value[d]);
        }
    }
};

}  // namespace gemsmith
