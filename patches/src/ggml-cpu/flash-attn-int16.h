#pragma once

// Many queries over q8_0 keys and values: bytes of keys times 16 bits of queries, bytes of values times 16 bits of weights, an
// instruction for two of each, where f32 takes one of each. Sixteen bits are as good as f32 (errors of 3e-5; ggml's own kernels
// round queries to eight: 1e-3).

#include "flash-attn-tile.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MULTIPLIES_INT16

namespace {

#if defined(__AVX512F__) && defined(__AVX512BW__)
using ints   = __m512i;
using floats = __m512;
ints   zeros() { return _mm512_setzero_si512(); }
ints   load(const int32_t * p) { return _mm512_loadu_si512(p); }
ints   broadcast(int32_t x) { return _mm512_set1_epi32(x); }
floats load(const float * p) { return _mm512_loadu_ps(p); }
void   store(float * p, floats x) { _mm512_storeu_ps(p, x); }
floats scaled(ints x, float d) { return _mm512_mul_ps(_mm512_cvtepi32_ps(x), _mm512_set1_ps(d)); }
floats times(floats a, floats b) { return _mm512_mul_ps(a, b); }
floats plus_times(floats sum, floats a, floats b) { return _mm512_fmadd_ps(a, b, sum); }
ints   plus_pairs(ints sum, ints a, ints b) {
#if defined(__AVX512VNNI__)
    return _mm512_dpwssd_epi32(sum, a, b);
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
#else
using ints   = __m256i;
using floats = __m256;
ints   zeros() { return _mm256_setzero_si256(); }
ints   load(const int32_t * p) { return _mm256_loadu_si256((const __m256i *) p); }
ints   broadcast(int32_t x) { return _mm256_set1_epi32(x); }
floats load(const float * p) { return _mm256_loadu_ps(p); }
void   store(float * p, floats x) { _mm256_storeu_ps(p, x); }
floats scaled(ints x, float d) { return _mm256_mul_ps(_mm256_cvtepi32_ps(x), _mm256_set1_ps(d)); }
floats times(floats a, floats b) { return _mm256_mul_ps(a, b); }
floats plus_times(floats sum, floats a, floats b) { return _mm256_fmadd_ps(a, b, sum); }
ints   plus_pairs(ints sum, ints a, ints b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
#endif

constexpr int64_t LANES      = sizeof(floats) / sizeof(float);
constexpr int64_t PAIRS      = QK8_0 / 2; // of a block
constexpr int64_t INT16_ROWS = 4;        // multiplied at once with two vectors of keys

// A query [n] as 16 bits, in pairs that lie beside those of INT16_ROWS - 1 others; returns the scale.
float round_query(const float * x, int64_t n, int32_t * out) {
    float most = 0.0f;
    for (int64_t i = 0; i < n; ++i) {
        most = std::max(most, fabsf(x[i]));
    }
    const float scale = most > 0.0f ? 32767.0f / most : 0.0f;
    for (int64_t i = 0; i < n; i += 2) {
        const int16_t pair[2] = { (int16_t) lrintf(x[i] * scale), (int16_t) lrintf(x[i + 1] * scale) };
        memcpy(out + i / 2 * INT16_ROWS, pair, sizeof(pair));
    }
    return most / 32767.0f;
}

// Key j of WIDTH as pairs of 16 bits, transposed: pairs [n / 2][WIDTH], scales [n / QK8_0][WIDTH].
template <int64_t WIDTH> void unpack_key(const block_q8_0 * key, int64_t n, int64_t j, int32_t * pairs, float * scales) {
    for (int64_t b = 0; b < n / QK8_0; ++b) {
        int32_t block[PAIRS];
        for (int h = 0; h < 2; ++h) {
            const __m128i bytes = _mm_loadu_si128((const __m128i *) (key[b].qs + 16 * h));
            _mm256_storeu_si256((__m256i *) (block + 8 * h), _mm256_cvtepi8_epi16(bytes));
        }
        for (int64_t p = 0; p < PAIRS; ++p) {
            pairs[(b * PAIRS + p) * WIDTH + j] = block[p];
        }
        scales[b * WIDTH + j] = _cvtsh_ss(key[b].d);
    }
}

// GCC orders sums of integers anew, moves them between registers and loads keys again for each row, unless told that they are
// looked at here. Inlined, it runs out of registers for addresses.
#if defined(__GNUC__)
#define HOLD(x) __asm__("" : "+v"(x))
#else
#define HOLD(x)
#endif

// Scores [n_rows][WIDTH] of queries [n_rows / INT16_ROWS][n / 2][INT16_ROWS] and such keys.
template <int64_t WIDTH>
#if defined(__GNUC__)
__attribute__((noinline))
#endif
void score_int16(
        const int32_t * queries, const float * query_scales, int64_t n_rows, const int32_t * pairs, const float * scales, int64_t n,
        float * scores) {
    static_assert(WIDTH % (2 * LANES) == 0, "two vectors of keys at once");
    for (int64_t row = 0; row < n_rows; row += INT16_ROWS) {
        for (int64_t j = 0; j < WIDTH; j += 2 * LANES) {
            const int32_t * query = queries + row * n / 2;
            const int32_t * key   = pairs + j;
            float         * out   = scores + row * WIDTH + j;
            for (int64_t b = 0; b < n / QK8_0; ++b) {
                ints products[INT16_ROWS][2];
                for (int r = 0; r < INT16_ROWS; ++r) {
                    products[r][0] = products[r][1] = zeros();
                }
                for (int64_t p = 0; p < PAIRS; ++p) {
                    ints k0 = load(key);
                    ints k1 = load(key + LANES);
                    HOLD(k0);
                    HOLD(k1);
                    for (int r = 0; r < INT16_ROWS; ++r) {
                        const ints q = broadcast(query[r]);
                        products[r][0] = plus_pairs(products[r][0], k0, q);
                        products[r][1] = plus_pairs(products[r][1], k1, q);
                        HOLD(products[r][0]);
                        HOLD(products[r][1]);
                    }
                    key   += WIDTH;
                    query += INT16_ROWS;
                }
                for (int h = 0; h < 2; ++h) {
                    const floats d = load(scales + b * WIDTH + j + h * LANES);
                    for (int r = 0; r < INT16_ROWS; ++r) {
                        float      * to    = out + r * WIDTH + h * LANES;
                        const floats found = scaled(products[r][h], query_scales[row + r]);
                        store(to, b ? plus_times(load(to), found, d) : times(found, d));
                    }
                }
            }
        }
    }
}

#if (defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)) || !defined(__AVX512F__)
#define WEIGHS_INT16

#if defined(__AVX512F__)
constexpr int WEIGHED_ROWS = 6; // multiplied at once with two vectors of values
// the values of two keys, one beside the other
ints pair_of(const int8_t * a, const int8_t * b) {
    const __m512i x = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) a));
    const __m512i y = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) b));
    return _mm512_mask_blend_epi16(0xAAAAAAAA, x, _mm512_slli_epi32(y, 16));
}
floats larger(floats a, floats b) { return _mm512_max_ps(a, b); }
float  max_lanes(floats x) { return _mm512_reduce_max_ps(x); }
void store_rounded(int16_t * p, floats x) { _mm256_storeu_si256((__m256i *) p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x))); }
#else
constexpr int WEIGHED_ROWS = 4;
ints pair_of(const int8_t * a, const int8_t * b) {
    const __m256i x = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) a));
    const __m256i y = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) b));
    return _mm256_blend_epi16(x, _mm256_slli_epi32(y, 16), 0xAA);
}
floats larger(floats a, floats b) { return _mm256_max_ps(a, b); }
float  max_lanes(floats x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}
void store_rounded(int16_t * p, floats x) {
    const __m256i i = _mm256_cvtps_epi32(x);
    _mm_storeu_si128((__m128i *) p, _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1)));
}
#endif

// No weight is negative: as 16 bits with a sign they lie this far lower.
constexpr int LOWER = 32767;

// Values of a tile of WIDTH keys, of which there are n_keys: pairs of keys [WIDTH / 2][n], scales [n / QK8_0][WIDTH]; `start`:
// what is added to a sum because its weights lie lower [n].
template <int64_t WIDTH, typename F> void unpack_values(const F & row, int64_t n_keys, int64_t n, int32_t * pairs, float * scales, int32_t * start) {
    static const int8_t nothing[QK8_0] = {};
    for (int64_t b = 0; b < n / QK8_0; ++b) {
        for (int64_t j = 0; j < WIDTH; ++j) {
            scales[b * WIDTH + j] = j < n_keys ? _cvtsh_ss(row(j)[b].d) : 0.0f;
        }
    }
    std::fill_n(start, n, 0);
    for (int64_t j = 0; j < WIDTH; j += 2) {
        const block_q8_0 * x = j     < n_keys ? row(j)     : nullptr;
        const block_q8_0 * y = j + 1 < n_keys ? row(j + 1) : nullptr;
        for (int64_t i = 0; i < n; i += LANES) {
            const int64_t b = i / QK8_0;
            const ints pair = pair_of(x ? x[b].qs + i % QK8_0 : nothing, y ? y[b].qs + i % QK8_0 : nothing);
            const ints sum  = plus_pairs(load(start + i), pair, broadcast(LOWER << 16 | LOWER));
            memcpy(pairs + j / 2 * n + i, &pair, sizeof(pair));
            memcpy(start + i, &sum, sizeof(sum));
        }
    }
}

// WIDTH scores become weights relative to `maximum`, times the scales of each block [n_blocks][WIDTH] rounded to 16 bits
// [n_blocks][WIDTH], `units` says of what; returns their sum before that. A key that is hidden changes nothing.
template <int64_t WIDTH> float weigh_int16(const float * scores, float maximum, const float * scales, int64_t n_blocks, int16_t * out, float * units) {
    floats weights[WIDTH / LANES];
    floats sum = GGML_F32_VEC_ZERO;
    const floats shift = GGML_F32_VEC_SET1(-maximum);
    for (int64_t i = 0; i < WIDTH / LANES; ++i) {
        weights[i] = ggml_v_expf(GGML_F32_VEC_ADD(load(scores + i * LANES), shift));
        sum        = GGML_F32_VEC_ADD(sum, weights[i]);
    }
    for (int64_t b = 0; b < n_blocks; ++b) {
        floats scaled[WIDTH / LANES];
        floats most = GGML_F32_VEC_ZERO;
        for (int64_t i = 0; i < WIDTH / LANES; ++i) {
            scaled[i] = times(weights[i], load(scales + b * WIDTH + i * LANES));
            most      = larger(most, scaled[i]);
        }
        const float largest = max_lanes(most);
        const floats factor = GGML_F32_VEC_SET1(largest > 0.0f ? 2 * LOWER / largest : 0.0f);
        units[b] = largest * (0.5f / LOWER);
        for (int64_t i = 0; i < WIDTH / LANES; ++i) {
            store_rounded(out + b * WIDTH + i * LANES, plus_times(GGML_F32_VEC_SET1(-LOWER), scaled[i], factor));
        }
    }
    return sum_lanes(sum);
}

// Adds values [WIDTH / 2][n] by such weights [n_rows][n / QK8_0][WIDTH / 2] and their units [n_rows][n / QK8_0] to the sums [n_rows][n].
template <int64_t WIDTH>
#if defined(__GNUC__)
__attribute__((noinline))
#endif
void add_int16(
        const int32_t * weights, const float * units, int64_t n_rows, const int32_t * pairs, const int32_t * start, int64_t n, float * sums) {
    const int64_t stride = n / QK8_0 * (WIDTH / 2);
    for (int64_t row = 0; row < n_rows; row += WEIGHED_ROWS) {
        for (int64_t i = 0; i < n; i += 2 * LANES) {
            const int32_t * of    = weights + row * stride + i / QK8_0 * (WIDTH / 2);
            const int32_t * value = pairs + i;
            ints products[WEIGHED_ROWS][2];
            for (int r = 0; r < WEIGHED_ROWS; ++r) {
                products[r][0] = load(start + i);
                products[r][1] = load(start + i + LANES);
            }
            for (int64_t p = 0; p < WIDTH / 2; ++p) {
                ints v0 = load(value);
                ints v1 = load(value + LANES);
                HOLD(v0);
                HOLD(v1);
                for (int r = 0; r < WEIGHED_ROWS; ++r) {
                    const ints w = broadcast(of[r * stride + p]);
                    products[r][0] = plus_pairs(products[r][0], v0, w);
                    products[r][1] = plus_pairs(products[r][1], v1, w);
                    HOLD(products[r][0]);
                    HOLD(products[r][1]);
                }
                value += n;
            }
            for (int r = 0; r < WEIGHED_ROWS; ++r) {
                for (int h = 0; h < 2; ++h) {
                    float * to = sums + (row + r) * n + i + h * LANES;
                    store(to, GGML_F32_VEC_ADD(load(to), scaled(products[r][h], units[(row + r) * (n / QK8_0) + i / QK8_0])));
                }
            }
        }
    }
}
#endif

} // namespace

#endif
