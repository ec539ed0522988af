#include "flash-prefill.h"

#include "common.h"
#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "simd-gemm.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int64_t UNIT        = 12;         // rows that simd_gemm takes at once: 4 or 6
constexpr int64_t ROWS        = 5 * UNIT;   // queries of a head that meet a tile of keys at once
constexpr int64_t KEYS        = 64;         // keys of a tile
constexpr int64_t MIN_QUERIES = 32;         // fewer gain nothing from tiles
constexpr int64_t MAX_HEAD    = 256;        // longer heads don't fit the first-level cache
constexpr size_t  BLOCK_BYTES = 256 * 1024; // queries and sums of a block: half of a usual second-level cache
constexpr size_t  APART       = 64;         // floats between the scratch memories of two threads: a cache line and its neighbours
constexpr float   HIDDEN      = -INFINITY;

// The work is divided into blocks: query heads that share a key head, by a stretch of queries.
struct plan {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    float   scale;
    float   softcap;
    int64_t group;     // query heads of a key head
    int64_t heads;     // of them in a block
    int64_t stretch;   // queries of a block, a multiple of ROWS
    int64_t n_parts;   // blocks by heads of a group
    int64_t n_blocks;

    plan(const ggml_tensor * dst, int n_threads)
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]), sinks(dst->src[4]) {
        memcpy(&scale,   (const float *) dst->op_params + 0, sizeof(float));
        memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));

        const int64_t room = std::max<int64_t>(1, BLOCK_BYTES / (sizeof(float) * ROWS * (k->ne[0] + v->ne[0])));
        group   = q->ne[2] / k->ne[2];
        heads   = std::min(group, room);
        n_parts = (group + heads - 1) / heads;
        stretch = room / heads * ROWS;
        // rather small blocks than threads without work
        while (stretch > ROWS && blocks() < 3 * n_threads) {
            stretch -= ROWS;
        }
        n_blocks = blocks();
    }

    int64_t stretches() const { return (q->ne[1] + stretch - 1) / stretch; }
    int64_t blocks()    const { return q->ne[3] * k->ne[2] * n_parts * stretches(); }

    int64_t rows()      const { return heads * stretch; }
    // queries, sums, scores, mask, keys, values, one key, maxima, totals
    size_t floats() const {
        const int64_t dk = k->ne[0];
        const int64_t dv = v->ne[0];
        return rows() * (dk + dv + 2) + 2 * ROWS * KEYS + KEYS * (dk + dv) + dk + APART;
    }
};

enum class sight { none, all, some };

// What of a tile of the mask can be seen. Writes it to `out` [ROWS][KEYS] if that differs from value to value.
sight look(const ggml_tensor * mask, int64_t i3, int64_t row, int64_t n_rows, int64_t key, int64_t n_keys, float * out) {
    bool none = true;
    bool all  = true;
    for (int64_t r = 0; r < n_rows; ++r) {
        const auto * m = (const ggml_fp16_t *) ((const char *) mask->data + (row + r) * mask->nb[1] + (i3 % mask->ne[3]) * mask->nb[3]) + key;
        uint16_t bits;
        uint16_t any  = 0;
        uint16_t same = 0;
        for (int64_t j = 0; j < n_keys; ++j) {
            memcpy(&bits, m + j, sizeof(bits));
            any  |= bits;
            same |= bits ^ 0xFC00; // -inf
        }
        all  = all  && any  == 0;
        none = none && same == 0;
        if (!all && !none) {
            break;
        }
    }
    if (none || (all && n_keys == KEYS)) {
        return none ? sight::none : sight::all;
    }
    for (int64_t r = 0; r < n_rows; ++r) {
        const auto * m = (const ggml_fp16_t *) ((const char *) mask->data + (row + r) * mask->nb[1] + (i3 % mask->ne[3]) * mask->nb[3]) + key;
        ggml_cpu_fp16_to_fp32(m, out + r * KEYS, n_keys);
        std::fill(out + r * KEYS + n_keys, out + (r + 1) * KEYS, HIDDEN);
    }
    return sight::some;
}

float max_of(const float * x) {
    float lane[16];
    memcpy(lane, x, sizeof(lane));
    for (int64_t j = 16; j < KEYS; j += 16) {
        for (int64_t l = 0; l < 16; ++l) {
            lane[l] = lane[l] > x[j + l] ? lane[l] : x[j + l];
        }
    }
    for (int64_t half = 8; half > 0; half /= 2) {
        for (int64_t l = 0; l < half; ++l) {
            lane[l] = lane[l] > lane[l + half] ? lane[l] : lane[l + half];
        }
    }
    return lane[0];
}

const float * row_of(const ggml_tensor * t, int64_t row, int64_t head, int64_t i3, float * unpacked) {
    const char * data = (const char *) t->data + row * t->nb[1] + head * t->nb[2] + i3 * t->nb[3];
    if (t->type == GGML_TYPE_F32) {
        return (const float *) data;
    }
    if (t->type == GGML_TYPE_F16) {
        ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) data, unpacked, t->ne[0]);
    } else {
        ggml_get_type_traits(t->type)->to_float(data, unpacked, t->ne[0]);
    }
    return unpacked;
}

// One block: all keys pass by its queries, tile by tile; maxima and totals are kept as they go (online softmax).
void compute_block(const plan & p, ggml_tensor * dst, int64_t block, float * work) {
    const int64_t dk = p.k->ne[0];
    const int64_t dv = p.v->ne[0];

    const int64_t stretches = p.stretches();
    const int64_t first     = block % stretches * p.stretch;
    const int64_t part      = block / stretches % p.n_parts;
    const int64_t k_head    = block / stretches / p.n_parts % p.k->ne[2];
    const int64_t i3        = block / stretches / p.n_parts / p.k->ne[2];
    const int64_t k3        = i3 / (p.q->ne[3] / p.k->ne[3]);
    const int64_t v3        = i3 / (p.q->ne[3] / p.v->ne[3]);
    const int64_t v_head    = k_head / (p.k->ne[2] / p.v->ne[2]);

    const int64_t head    = k_head * p.group + part * p.heads;
    const int64_t n_heads = std::min(p.heads, p.group - part * p.heads);
    const int64_t n_rows  = std::min(p.stretch, p.q->ne[1] - first);

    float * queries = work;                            // [heads][stretch][dk]
    float * sums    = queries + p.rows() * dk;         // [heads][stretch][dv]
    float * maxima  = sums    + p.rows() * dv;         // [heads][stretch]
    float * totals  = maxima  + p.rows();              // [heads][stretch]
    float * scores  = totals  + p.rows();              // [ROWS][KEYS]
    float * mask    = scores  + ROWS * KEYS;           // [ROWS][KEYS]
    float * keys    = mask    + ROWS * KEYS;           // [dk][KEYS]
    float * values  = keys    + KEYS * dk;             // [KEYS][dv]
    float * one     = values  + KEYS * dv;             // [dk]

    const float scale = p.softcap != 0.0f ? p.scale / p.softcap : p.scale;
    for (int64_t h = 0; h < n_heads; ++h) {
        std::fill(queries + (h * p.stretch + n_rows) * dk, queries + (h + 1) * p.stretch * dk, 0.0f);
        for (int64_t r = 0; r < n_rows; ++r) {
            float * to = queries + (h * p.stretch + r) * dk;
            memcpy(to, row_of(p.q, first + r, head + h, i3, nullptr), dk * sizeof(float));
            ggml_vec_scale_f32(dk, to, scale);
        }
    }
    std::fill(sums,   sums   + p.rows() * dv, 0.0f);
    std::fill(totals, totals + p.rows(),      0.0f);
    std::fill(maxima, maxima + p.rows(),      HIDDEN);

    for (int64_t key = 0; key < p.k->ne[1]; key += KEYS) {
        const int64_t n_keys = std::min(KEYS, p.k->ne[1] - key);
        bool unpacked = false;

        for (int64_t at = 0; at < n_rows; at += ROWS) {
            const int64_t n = std::min(ROWS, n_rows - at);
            const int64_t m = (n + UNIT - 1) / UNIT * UNIT;
            const sight   s = p.mask ? look(p.mask, i3, first + at, n, key, n_keys, mask) : n_keys == KEYS ? sight::all : sight::some;
            if (s == sight::none) {
                continue;
            }
            if (!p.mask && s == sight::some) {
                for (int64_t r = 0; r < n; ++r) {
                    std::fill(mask + r * KEYS,          mask + r * KEYS + n_keys,  0.0f);
                    std::fill(mask + r * KEYS + n_keys, mask + (r + 1) * KEYS,     HIDDEN);
                }
            }
            if (!unpacked) {
                unpacked = true;
                if (n_keys < KEYS) {
                    std::fill(keys,   keys   + KEYS * dk, 0.0f);
                    std::fill(values, values + KEYS * dv, 0.0f);
                }
                for (int64_t j = 0; j < n_keys; ++j) {
                    const float * from = row_of(p.k, key + j, k_head, k3, one);
                    for (int64_t d = 0; d < dk; ++d) {
                        keys[d * KEYS + j] = from[d];
                    }
                    float * to = values + j * dv;
                    from = row_of(p.v, key + j, v_head, v3, to);
                    if (from != to) {
                        memcpy(to, from, dv * sizeof(float));
                    }
                }
            }
            for (int64_t h = 0; h < n_heads; ++h) {
                const int64_t row = h * p.stretch + at;

                std::fill(scores, scores + m * KEYS, 0.0f);
                simd_gemm(scores, queries + row * dk, keys, m, dk, KEYS);
                if (p.softcap != 0.0f) {
                    ggml_vec_tanh_f32(n * KEYS, scores, scores);
                    ggml_vec_scale_f32(n * KEYS, scores, p.softcap);
                }
                if (s == sight::some) {
                    ggml_vec_add_f32(n * KEYS, scores, scores, mask);
                }
                for (int64_t r = 0; r < n; ++r) {
                    float * score = scores + r * KEYS;
                    const float before = maxima[row + r];
                    const float max    = std::max(before, max_of(score));
                    if (max == HIDDEN) {
                        std::fill(score, score + KEYS, 0.0f);
                        continue;
                    }
                    if (max > before) {
                        const float fade = expf(before - max);
                        ggml_vec_scale_f32(dv, sums + (row + r) * dv, fade);
                        totals[row + r] *= fade;
                        maxima[row + r]  = max;
                    }
                    totals[row + r] += (float) ggml_vec_soft_max_f32(KEYS, score, score, max);
                }
                simd_gemm(sums + row * dv, scores, values, m, KEYS, dv);
            }
        }
    }

    for (int64_t h = 0; h < n_heads; ++h) {
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t row = h * p.stretch + r;
            float * sum   = sums + row * dv;
            float   total = totals[row];
            if (p.sinks) {
                const float sink = ((const float *) p.sinks->data)[head + h];
                const float max  = std::max(maxima[row], sink);
                const float fade = expf(maxima[row] - max);
                ggml_vec_scale_f32(dv, sum, fade);
                total = total * fade + expf(sink - max);
            }
            ggml_vec_scale_f32(dv, sum, total == 0.0f ? 0.0f : 1.0f / total);
            memcpy((char *) dst->data + (head + h) * dst->nb[1] + (first + r) * dst->nb[2] + i3 * dst->nb[3], sum, dv * sizeof(float));
        }
    }
}

bool unpacks(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || (ggml_is_quantized(t->type) && ggml_get_type_traits(t->type)->to_float);
}

} // namespace

bool ggml_flash_prefill_supports(const ggml_tensor * dst) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    float max_bias;
    memcpy(&max_bias, (const float *) dst->op_params + 1, sizeof(float));

    // simd_gemm has no tail of columns but on x86
#if defined(__ARM_FEATURE_SVE)
    const bool even = false;
#elif defined(__x86_64__) || defined(_M_X64)
    const bool even = true;
#else
    const bool even = v->ne[0] % 8 == 0;
#endif
    return even && max_bias == 0.0f && q->type == GGML_TYPE_F32 && unpacks(k) && unpacks(v) && q->ne[1] >= MIN_QUERIES
        && k->ne[0] <= MAX_HEAD && v->ne[0] <= MAX_HEAD && (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1));
}

size_t ggml_flash_prefill_work_size(const ggml_tensor * dst, int n_threads) {
    return ggml_flash_prefill_supports(dst) ? sizeof(float) * plan(dst, n_threads).floats() * n_threads : 0;
}

void ggml_compute_forward_flash_prefill(const ggml_compute_params * params, ggml_tensor * dst) {
    const plan p(dst, params->nth);

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    float * work = (float *) params->wdata + params->ith * p.floats();
    for (int64_t block = params->ith; block < p.n_blocks; block = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        compute_block(p, dst, block, work);
    }
}
