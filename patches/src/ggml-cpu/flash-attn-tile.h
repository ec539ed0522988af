#pragma once

// What few and many queries of flash-attn.cpp share: what a tile of the mask hides, rows as f32, weights of scores.
//
// Must not know: how the work is divided.

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "quants.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr float HIDDEN = -INFINITY;

// What of some keys a query can see.
enum class sight { none, all, some };

const ggml_fp16_t * mask_of(const ggml_tensor * mask, int64_t i3, int64_t row, int64_t key) {
    return (const ggml_fp16_t *) ((const char *) mask->data + row * mask->nb[1] + (i3 % mask->ne[3]) * mask->nb[3]) + key;
}

// Of `n_rows` queries from `row` on and `n_keys` keys from `key` on, known from the bits of the mask; no mask hides nothing.
sight look(const ggml_tensor * mask, int64_t i3, int64_t row, int64_t n_rows, int64_t key, int64_t n_keys) {
    bool none = mask;
    bool all  = true;
    for (int64_t r = 0; mask && r < n_rows && (none || all); ++r) {
        const ggml_fp16_t * m = mask_of(mask, i3, row + r, key);
        uint16_t zero = 0;
        uint16_t inf  = 0;
        for (int64_t j = 0; j < n_keys; ++j) {
            uint16_t bits;
            memcpy(&bits, m + j, sizeof(bits));
            zero |= bits;
            inf  |= bits ^ 0xFC00;
        }
        all  = all  && zero == 0;
        none = none && inf  == 0;
    }
    return none ? sight::none : all ? sight::all : sight::some;
}

// The mask of those queries, [n_rows][width]; it hides keys from `n_keys` on.
void unpack_mask(
        const ggml_tensor * mask, int64_t i3, int64_t row, int64_t n_rows, int64_t key, int64_t n_keys, int64_t width, float * out) {
    for (int64_t r = 0; r < n_rows; ++r) {
        if (mask) {
            ggml_cpu_fp16_to_fp32(mask_of(mask, i3, row + r, key), out + r * width, n_keys);
        } else {
            std::fill(out + r * width, out + r * width + n_keys, 0.0f);
        }
        std::fill(out + r * width + n_keys, out + (r + 1) * width, HIDDEN);
    }
}

const char * row_of(const ggml_tensor * t, int64_t row, int64_t head, int64_t i3) {
    return (const char *) t->data + row * t->nb[1] + head * t->nb[2] + i3 * t->nb[3];
}

// ggml's conversions are calls, and that of q8_0 is compiled for the least CPU of an architecture.
void unpack_row(ggml_type type, const char * from, int64_t n, float * out) {
    int64_t i = 0;
    switch (type) {
        case GGML_TYPE_F32:
            memcpy(out, from, n * sizeof(float));
            break;
        case GGML_TYPE_F16:
#if defined(__AVX512F__)
            for (; i + 16 <= n; i += 16) {
                _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) ((const ggml_fp16_t *) from + i))));
            }
#elif defined(__F16C__)
            for (; i + 8 <= n; i += 8) {
                _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) ((const ggml_fp16_t *) from + i))));
            }
#endif
            if (i < n) {
                ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) from + i, out + i, n - i);
            }
            break;
        case GGML_TYPE_Q8_0:
            for (const block_q8_0 * b = (const block_q8_0 *) from; i < n; ++b, i += QK8_0) {
                const float d = GGML_CPU_FP16_TO_FP32(b->d);
                for (int64_t j = 0; j < QK8_0; ++j) {
                    out[i + j] = d * b->qs[j];
                }
            }
            break;
        default:
            ggml_get_type_traits(type)->to_float(from, out, n);
    }
}

constexpr int64_t AT_A_TIME = 8; // rows that are transposed together

// Up to AT_A_TIME rows [n_rows][stride] of n values become columns: [n][width].
inline void transpose(const float * rows, int64_t n_rows, int64_t n, int64_t stride, float * out, int64_t width) {
    int64_t d = 0;
#if defined(__AVX__)
    for (; n_rows == AT_A_TIME && d + 8 <= n; d += 8) {
        __m256 x[8];
        __m256 y[8];
        for (int i = 0; i < 8; ++i) {
            x[i] = _mm256_loadu_ps(rows + i * stride + d);
        }
        for (int i = 0; i < 8; i += 2) {
            y[i]     = _mm256_unpacklo_ps(x[i], x[i + 1]);
            y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            x[i]     = _mm256_shuffle_ps(y[i],     y[i + 2], 0x44);
            x[i + 1] = _mm256_shuffle_ps(y[i],     y[i + 2], 0xEE);
            x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
            x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
        }
        for (int i = 0; i < 4; ++i) {
            _mm256_storeu_ps(out + (d + i)     * width, _mm256_permute2f128_ps(x[i], x[i + 4], 0x20));
            _mm256_storeu_ps(out + (d + i + 4) * width, _mm256_permute2f128_ps(x[i], x[i + 4], 0x31));
        }
    }
#endif
    for (; d < n; ++d) {
        for (int64_t i = 0; i < n_rows; ++i) {
            out[d * width + i] = rows[i * stride + d];
        }
    }
}

bool unpacks(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || (ggml_is_quantized(t->type) && ggml_get_type_traits(t->type)->to_float);
}

// Waiting for memory takes most of the time of few queries: fetch a row while others are computed.
void prefetch(const char * row, size_t size) {
#if defined(__GNUC__)
    for (size_t at = 0; at < size; at += 64) {
        __builtin_prefetch(row + at);
    }
    __builtin_prefetch(row + size - 1);
#else
    GGML_UNUSED(row);
    GGML_UNUSED(size);
#endif
}

// The sum of the lanes.
inline float sum_lanes(GGML_F32_VEC x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(x);
#elif defined(__AVX2__)
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
#else
    float lanes[GGML_F32_EPR];
    GGML_F32_VEC_STORE(lanes, x);
    float sum = 0.0f;
    for (float lane : lanes) {
        sum += lane;
    }
    return sum;
#endif
}

// Of n values, a multiple of 16.
inline float max_of(const float * x, int64_t n) {
#if defined(__AVX512F__)
    __m512 a = _mm512_loadu_ps(x);
    for (int64_t j = 16; j < n; j += 16) {
        a = _mm512_max_ps(a, _mm512_loadu_ps(x + j));
    }
    return _mm512_reduce_max_ps(a);
#elif defined(__AVX2__)
    __m256 a = _mm256_loadu_ps(x);
    for (int64_t j = 8; j < n; j += 8) {
        a = _mm256_max_ps(a, _mm256_loadu_ps(x + j));
    }
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
#else
    float a[16];
    float b[8];
    float c[4];
    memcpy(a, x, sizeof(a));
    for (int64_t j = 16; j < n; j += 16) {
        for (int l = 0; l < 16; ++l) { a[l] = a[l] > x[j + l] ? a[l] : x[j + l]; }
    }
    for (int l = 0; l < 8; ++l) { b[l] = a[l] > a[l + 8] ? a[l] : a[l + 8]; }
    for (int l = 0; l < 4; ++l) { c[l] = b[l] > b[l + 4] ? b[l] : b[l + 4]; }
    return std::max(std::max(c[0], c[1]), std::max(c[2], c[3]));
#endif
}

// Scores, a multiple of 16 of them, become weights relative to `maximum`, there or elsewhere; returns the sum of those.
inline float weigh(const float * scores, int64_t n, float maximum, float * weights) {
#if (defined(__AVX512F__) && defined(__AVX512DQ__)) || (defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)) || \
    (defined(__ARM_NEON) && defined(__aarch64__) && !defined(__ARM_FEATURE_SVE))
    // ggml_vec_soft_max_f32 adds up the lanes of each vector
    GGML_F32_VEC       sum   = GGML_F32_VEC_ZERO;
    const GGML_F32_VEC shift = GGML_F32_VEC_SET1(-maximum);
    for (int64_t i = 0; i < n; i += GGML_F32_EPR) {
        const GGML_F32_VEC weight = ggml_v_expf(GGML_F32_VEC_ADD(GGML_F32_VEC_LOAD(scores + i), shift));
        GGML_F32_VEC_STORE(weights + i, weight);
        sum = GGML_F32_VEC_ADD(sum, weight);
    }
    return sum_lanes(sum);
#else
    return (float) ggml_vec_soft_max_f32(n, weights, scores, maximum);
#endif
}

inline float weigh(float * scores, int64_t n, float maximum) { return weigh(scores, n, maximum, scores); }

void soften(float * scores, int64_t n, float softcap) {
    if (softcap != 0.0f) {
        ggml_vec_tanh_f32(n, scores, scores);
        ggml_vec_scale_f32(n, scores, softcap);
    }
}

// Sums over keys, not yet divided by their total; `sink` counts like a key without a value.
void write_result(ggml_tensor * dst, const float * sink, int64_t i3, int64_t head, int64_t query, int64_t dv, float * sum, float maximum, float total) {
    if (sink) {
        const float found = std::max(maximum, *sink);
        const float fade  = expf(maximum - found);
        ggml_vec_scale_f32(dv, sum, fade);
        total = total * fade + expf(*sink - found);
    }
    ggml_vec_scale_f32(dv, sum, total == 0.0f ? 0.0f : 1.0f / total);
    memcpy((char *) dst->data + head * dst->nb[1] + query * dst->nb[2] + i3 * dst->nb[3], sum, dv * sizeof(float));
}

} // namespace
