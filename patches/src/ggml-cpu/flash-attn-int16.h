#pragma once

// Scores of many queries over q8_0 keys: bytes of keys times 16 bits of queries, an instruction for two of each, where f32
// takes one of each. Sixteen bits of a query are as good as f32 (errors of 3e-5; ggml's own kernels round queries to eight: 1e-3).

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

} // namespace

#endif
