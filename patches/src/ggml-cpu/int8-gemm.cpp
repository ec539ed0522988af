#include "int8-gemm.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "own-kernels.h"
#include "quants.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

// Elsewhere ggml's kernels are used: a product of bytes needs instructions for it.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

namespace {

constexpr int64_t GROUP      = 16;        // rows of weights that lie side by side
constexpr int64_t ROWS       = 3 * GROUP; // unpacked at once
constexpr int64_t BLOCK      = 32;        // values of a row with one scale
constexpr int64_t STEP       = 4;         // values that an instruction multiplies and adds
constexpr int     TOKENS     = 4;         // multiplied with a group at once
constexpr int64_t AT_ONCE    = 512;       // tokens whose activations are rounded together
constexpr int64_t MIN_TOKENS = 32;        // fewer don't repay the unpacking
constexpr int64_t APART      = 64;        // bytes between the scratch memories of two threads

static_assert(QK4_0 == BLOCK && QK4_1 == BLOCK && QK5_0 == BLOCK && QK5_1 == BLOCK && QK_K == 8 * BLOCK, "one scale for as many values");

// A value of a weight is d * w + m, with w of `bits` bits.
struct weight_block {
    uint8_t w[BLOCK / STEP][GROUP][STEP];
    float   d[GROUP];
    float   m[GROUP];
};

// A value of an activation is d * a. `sum` is that of all of them.
struct activation_block {
    int8_t a[BLOCK];
    float  d;
    float  sum;
};

int bits_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q4_K: return 4;
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q5_K: return 5;
        default:             return 0;
    }
}

bool supports(const ggml_tensor * dst) {
    const ggml_tensor * w = dst->src[0];
    const ggml_tensor * x = dst->src[1];
    return own_kernels() && bits_of(w->type) && x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && x->ne[1] >= MIN_TOKENS
        && ggml_nrows(x) == x->ne[1] && ggml_nrows(w) == w->ne[1];
}

int64_t n_blocks(const ggml_tensor * dst) { return dst->src[0]->ne[0] / BLOCK; }

// Activations, for all threads: [tokens][blocks].
size_t shared_size(const ggml_tensor * dst) {
    return sizeof(activation_block) * std::min(AT_ONCE, dst->src[1]->ne[1]) * n_blocks(dst) + APART;
}

// Weights of a thread: [ROWS / GROUP][blocks].
size_t thread_size(const ggml_tensor * dst) { return sizeof(weight_block) * ROWS / GROUP * n_blocks(dst) + APART; }

// A block of 32 values before its bytes are spread: w, d and m as above.
struct values {
    __m256i w;
    float   d;
    float   m;
};

// Sixteen bytes hold two values each, the first sixteen in the low halves.
__m256i nibbles(const uint8_t * qs) {
    const __m128i both = _mm_loadu_si128((const __m128i *) qs);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), _mm256_set1_epi8(15));
}

// Bit i of qh as the fifth bit of value i.
__m256i fifth_bits(const uint8_t * qh) {
    uint32_t bits;
    memcpy(&bits, qh, sizeof(bits));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), _mm256_set_epi64x(
        0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0x0000000000000000));
    const __m256i each = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(bytes, each), each), _mm256_set1_epi8(16));
}

values values_of(const block_q4_0 & b) {
    const float d = _cvtsh_ss(b.d);
    return { nibbles(b.qs), d, -8 * d };
}

values values_of(const block_q4_1 & b) { return { nibbles(b.qs), _cvtsh_ss(b.d), _cvtsh_ss(b.m) }; }

values values_of(const block_q5_0 & b) {
    const float d = _cvtsh_ss(b.d);
    return { _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)), d, -16 * d };
}

values values_of(const block_q5_1 & b) {
    return { _mm256_or_si256(nibbles(b.qs), fifth_bits(b.qh)), _cvtsh_ss(b.d), _cvtsh_ss(b.m) };
}

// Block `at` of the eight of a K-quant: scales and minima have six bits, those of blocks 4 to 7 in two pieces.
template <typename Super> values values_of(const Super & b, int at) {
    const uint8_t * s     = b.scales;
    const int       scale = at < 4 ? s[at] & 63     : (s[at + 4] & 15) | (s[at - 4] >> 6 << 4);
    const int       least = at < 4 ? s[at + 4] & 63 : (s[at + 4] >> 4) | (s[at]     >> 6 << 4);
    const __m256i   both  = _mm256_loadu_si256((const __m256i *) (b.qs + at / 2 * BLOCK));
    __m256i w = _mm256_and_si256(at % 2 ? _mm256_srli_epi16(both, 4) : both, _mm256_set1_epi8(15));
    if constexpr (std::is_same_v<Super, block_q5_K>) {
        const __m256i bit  = _mm256_set1_epi8((char) (1 << at));
        const __m256i high = _mm256_and_si256(_mm256_loadu_si256((const __m256i *) b.qh), bit);
        w = _mm256_or_si256(w, _mm256_and_si256(_mm256_cmpeq_epi8(high, bit), _mm256_set1_epi8(16)));
    }
    return { w, _cvtsh_ss(b.d) * scale, -_cvtsh_ss(b.dmin) * least };
}

values values_of(ggml_type type, const char * row, int64_t b) {
    switch (type) {
        case GGML_TYPE_Q4_0: return values_of(((const block_q4_0 *) row)[b]);
        case GGML_TYPE_Q4_1: return values_of(((const block_q4_1 *) row)[b]);
        case GGML_TYPE_Q5_0: return values_of(((const block_q5_0 *) row)[b]);
        case GGML_TYPE_Q5_1: return values_of(((const block_q5_1 *) row)[b]);
        case GGML_TYPE_Q4_K: return values_of(((const block_q4_K *) row)[b / 8], b % 8);
        default:             return values_of(((const block_q5_K *) row)[b / 8], b % 8);
    }
}

void unpack(ggml_type type, const char * row, int64_t n, int64_t r, weight_block * out) {
    for (int64_t b = 0; b < n; ++b) {
        const values v = values_of(type, row, b);
        uint8_t w[BLOCK];
        _mm256_storeu_si256((__m256i *) w, v.w);
        for (int64_t s = 0; s < BLOCK / STEP; ++s) {
            memcpy(out[b].w[s][r], w + s * STEP, STEP);
        }
        out[b].d[r] = v.d;
        out[b].m[r] = v.m;
    }
}

void round_activations(const float * x, int64_t n, activation_block * out) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int64_t b = 0; b < n; ++b) {
        __m256 v[4];
        __m256 most = _mm256_setzero_ps();
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm256_loadu_ps(x + b * BLOCK + 8 * i);
            most = _mm256_max_ps(most, _mm256_andnot_ps(sign, v[i]));
        }
        __m128 top = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
        top = _mm_max_ps(top, _mm_movehl_ps(top, top));
        top = _mm_max_ss(top, _mm_movehdup_ps(top));
        const float d = _mm_cvtss_f32(top) / 127.0f;

        const __m256 scale = _mm256_set1_ps(d == 0.0f ? 0.0f : 1.0f / d);
        __m256i a[4];
        for (int i = 0; i < 4; ++i) {
            a[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], scale));
        }
        const __m256i all  = _mm256_add_epi32(_mm256_add_epi32(a[0], a[1]), _mm256_add_epi32(a[2], a[3]));
        __m128i       sum  = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));

        // packing goes by halves of 128 bits
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(a[0], a[1]), _mm256_packs_epi32(a[2], a[3]));
        const __m256i order  = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256((__m256i *) out[b].a, _mm256_permutevar8x32_epi32(packed, order));
        out[b].d   = d;
        out[b].sum = d * _mm_cvtsi128_si32(sum);
    }
}

int32_t step_of(const activation_block & block, int64_t s) {
    int32_t four;
    memcpy(&four, block.a + s * STEP, STEP);
    return four;
}

// GCC orders sums of integers anew, and runs out of registers, unless told that each is looked at here.
#if defined(__GNUC__)
#define HOLD(x) __asm__("" : "+v"(x))
#else
#define HOLD(x)
#endif

// Products of a group of rows with T tokens.
#if defined(__AVX512F__) && defined(__AVX512BW__)
template <int bits, int T>
void multiply(const weight_block * weights, const activation_block * x, int64_t n, float * const * to) {
    __m512 sums[T];
    for (int t = 0; t < T; ++t) {
        sums[t] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < n; ++b) {
        __m512i products[T];
        for (int t = 0; t < T; ++t) {
            products[t] = _mm512_setzero_si512();
        }
#if defined(__AVX512VNNI__)
        for (int64_t s = 0; s < BLOCK / STEP; ++s) {
            const __m512i w = _mm512_loadu_si512(weights[b].w[s]);
            for (int t = 0; t < T; ++t) {
                products[t] = _mm512_dpbusd_epi32(products[t], w, _mm512_set1_epi32(step_of(x[t * n + b], s)));
            }
        }
#else
        constexpr int64_t RUN = bits == 4 ? 8 : 4; // two products of at most (2^bits - 1) * 127 are added so often in 16 bits
        for (int64_t first = 0; first < BLOCK / STEP; first += RUN) {
            __m512i run[T];
            for (int t = 0; t < T; ++t) {
                run[t] = _mm512_setzero_si512();
            }
            for (int64_t s = first; s < first + RUN; ++s) {
                const __m512i w = _mm512_loadu_si512(weights[b].w[s]);
                for (int t = 0; t < T; ++t) {
                    run[t] = _mm512_add_epi16(run[t], _mm512_maddubs_epi16(w, _mm512_set1_epi32(step_of(x[t * n + b], s))));
                    HOLD(run[t]);
                }
            }
            for (int t = 0; t < T; ++t) {
                products[t] = _mm512_add_epi32(products[t], _mm512_madd_epi16(run[t], _mm512_set1_epi16(1)));
            }
        }
#endif
        const __m512 d = _mm512_loadu_ps(weights[b].d);
        const __m512 m = _mm512_loadu_ps(weights[b].m);
        for (int t = 0; t < T; ++t) {
            const activation_block & a = x[t * n + b];
            sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(products[t]), _mm512_set1_ps(a.d)), d, sums[t]);
            sums[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(a.sum), sums[t]);
        }
    }
    for (int t = 0; t < T; ++t) {
        _mm512_storeu_ps(to[t], sums[t]);
    }
}
#else
template <int bits, int T>
void multiply(const weight_block * weights, const activation_block * x, int64_t n, float * const * to) {
    constexpr int64_t RUN = bits == 4 ? 8 : 4; // two products of at most (2^bits - 1) * 127 are added so often in 16 bits
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sums[T][2];
    for (int t = 0; t < T; ++t) {
        sums[t][0] = sums[t][1] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < n; ++b) {
        __m256i products[T][2];
        for (int64_t first = 0; first < BLOCK / STEP; first += RUN) {
            __m256i run[T][2];
            for (int t = 0; t < T; ++t) {
                run[t][0] = run[t][1] = _mm256_setzero_si256();
            }
            for (int64_t s = first; s < first + RUN; ++s) {
                const __m256i w0 = _mm256_loadu_si256((const __m256i *) weights[b].w[s][0]);
                const __m256i w1 = _mm256_loadu_si256((const __m256i *) weights[b].w[s][8]);
                for (int t = 0; t < T; ++t) {
                    const __m256i a = _mm256_set1_epi32(step_of(x[t * n + b], s));
                    run[t][0] = _mm256_add_epi16(run[t][0], _mm256_maddubs_epi16(w0, a));
                    run[t][1] = _mm256_add_epi16(run[t][1], _mm256_maddubs_epi16(w1, a));
                    HOLD(run[t][0]);
                    HOLD(run[t][1]);
                }
            }
            for (int t = 0; t < T; ++t) {
                for (int h = 0; h < 2; ++h) {
                    const __m256i sum = _mm256_madd_epi16(run[t][h], ones);
                    products[t][h] = first ? _mm256_add_epi32(products[t][h], sum) : sum;
                }
            }
        }
        for (int h = 0; h < 2; ++h) {
            const __m256 d = _mm256_loadu_ps(weights[b].d + 8 * h);
            const __m256 m = _mm256_loadu_ps(weights[b].m + 8 * h);
            for (int t = 0; t < T; ++t) {
                const activation_block & a = x[t * n + b];
                sums[t][h] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(products[t][h]), _mm256_set1_ps(a.d)), d, sums[t][h]);
                sums[t][h] = _mm256_fmadd_ps(m, _mm256_set1_ps(a.sum), sums[t][h]);
            }
        }
    }
    for (int t = 0; t < T; ++t) {
        _mm256_storeu_ps(to[t],     sums[t][0]);
        _mm256_storeu_ps(to[t] + 8, sums[t][1]);
    }
}
#endif

template <int bits, int T = TOKENS>
void multiply_some(int64_t n_tokens, const weight_block * weights, const activation_block * x, int64_t n, float * const * to) {
    if (n_tokens == T) {
        multiply<bits, T>(weights, x, n, to);
    } else if constexpr (T > 1) {
        multiply_some<bits, T - 1>(n_tokens, weights, x, n, to);
    }
}

// Rows from `row` on, at most ROWS, with tokens from `first` on.
void compute_rows(ggml_tensor * dst, int64_t row, int64_t first, int64_t n_tokens, const activation_block * x, weight_block * weights) {
    const ggml_tensor * w = dst->src[0];

    const int64_t n        = n_blocks(dst);
    const int64_t n_rows   = std::min(ROWS, w->ne[1] - row);
    const int64_t n_groups = (n_rows + GROUP - 1) / GROUP;
    const auto    product  = bits_of(w->type) == 4 ? multiply_some<4> : multiply_some<5>;

    if (n_rows % GROUP) {
        std::fill((char *) (weights + (n_groups - 1) * n), (char *) (weights + n_groups * n), 0);
    }
    for (int64_t r = 0; r < n_rows; ++r) {
        unpack(w->type, (const char *) w->data + (row + r) * w->nb[1], n, r % GROUP, weights + r / GROUP * n);
    }
    for (int64_t t = 0; t < n_tokens; t += TOKENS) {
        const int64_t some = std::min<int64_t>(TOKENS, n_tokens - t);
        for (int64_t g = 0; g < n_groups; ++g) {
            const int64_t count = std::min(GROUP, n_rows - g * GROUP);
            float   rest[TOKENS][GROUP];
            float * out[TOKENS];
            float * to[TOKENS];
            for (int64_t i = 0; i < some; ++i) {
                out[i] = (float *) ((char *) dst->data + (first + t + i) * dst->nb[1]) + row + g * GROUP;
                to[i]  = count == GROUP ? out[i] : rest[i];
            }
            product(some, weights + g * n, x + t * n, n, to);
            for (int64_t i = 0; i < some && count < GROUP; ++i) {
                memcpy(out[i], rest[i], count * sizeof(float));
            }
        }
    }
}

} // namespace

size_t ggml_int8_gemm_work_size(const ggml_tensor * dst, int n_threads) {
    return supports(dst) ? shared_size(dst) + thread_size(dst) * n_threads : 0;
}

bool ggml_compute_forward_int8_gemm(const ggml_compute_params * params, ggml_tensor * dst) {
    if (!supports(dst)) {
        return false;
    }
    const ggml_tensor * x = dst->src[1];

    const int64_t n        = n_blocks(dst);
    const int64_t n_chunks = (dst->src[0]->ne[1] + ROWS - 1) / ROWS;

    activation_block * rounded = (activation_block *) params->wdata;
    weight_block *     weights = (weight_block *) ((char *) params->wdata + shared_size(dst) + params->ith * thread_size(dst));

    for (int64_t first = 0; first < x->ne[1]; first += AT_ONCE) {
        const int64_t n_tokens = std::min(AT_ONCE, x->ne[1] - first);

        ggml_barrier(params->threadpool); // nobody reads those of the tokens before any more
        for (int64_t t = params->ith; t < n_tokens; t += params->nth) {
            round_activations((const float *) ((const char *) x->data + (first + t) * x->nb[1]), n, rounded + t * n);
        }
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        for (int64_t chunk = params->ith; chunk < n_chunks; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            compute_rows(dst, chunk * ROWS, first, n_tokens, rounded, weights);
        }
    }
    return true;
}

#else

size_t ggml_int8_gemm_work_size(const ggml_tensor *, int) { return 0; }
bool   ggml_compute_forward_int8_gemm(const ggml_compute_params *, ggml_tensor *) { return false; }

#endif
