#include "int8-gemm.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "own-kernels.h"
#include "quants.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// Elsewhere ggml's kernels are used: a product of bytes needs instructions for it, and where Arm has some for matrices, ggml uses them.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MULTIPLIES_INT8
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_FEATURE_MATMUL_INT8)
#define MULTIPLIES_INT8
#endif

#if defined(MULTIPLIES_INT8)

namespace {

constexpr int64_t GROUP      = 16;        // rows of weights that lie side by side
constexpr int64_t ROWS       = 3 * GROUP; // unpacked at once
constexpr int64_t BLOCK      = 32;        // values of a row that are multiplied together
constexpr int64_t STEP       = 4;         // values that an instruction multiplies and adds
constexpr int64_t STEPS      = BLOCK / STEP;
constexpr int64_t AT_ONCE    = 512;       // tokens whose activations are rounded together
constexpr int64_t MIN_TOKENS = 32;        // fewer don't repay the unpacking
constexpr int64_t APART      = 64;        // bytes between the scratch memories of two threads

// Multiplied with a group at once: as many sums as two units need that answer after five cycles, and registers hold.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
constexpr int TOKENS = 12;
#elif defined(__AVX512F__) && defined(__AVX512BW__)
constexpr int TOKENS = 8;
#else
constexpr int TOKENS = 4;
#endif

// How weights of eight bits are stored: products of AVX-512 take them without a sign.
#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr int UNSIGNED = 128;
#else
constexpr int UNSIGNED = 0;
#endif

static_assert(QK4_0 == BLOCK && QK4_1 == BLOCK && QK5_0 == BLOCK && QK5_1 == BLOCK && QK8_0 == BLOCK && QK_K == 8 * BLOCK, "blocks");

// Weights of six bits have a scale for 16 values.
constexpr int64_t parts_of(int bits) { return bits == 6 ? 2 : 1; }

// A value of a weight is d * w + m, with w of `bits` bits. A block, or half of it.
template <int bits> struct weight_block {
    uint8_t w[STEPS / parts_of(bits)][GROUP][STEP];
    float   d[GROUP];
    float   m[GROUP];
};

// A value of an activation is d * a. Sums are of all of them, and of each half.
struct activation_block {
    int8_t a[BLOCK];
    float  d;
    float  sum;
    float  sums[2];
};

int bits_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q4_K: return 4;
        case GGML_TYPE_Q5_0:
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q5_K: return 5;
        case GGML_TYPE_Q6_K: return 6;
#if !defined(__AVX512F__) || defined(__AVX512VNNI__)
        case GGML_TYPE_Q8_0: return 8;
#endif
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

// Activations, for all threads: [tokens / TOKENS][blocks][TOKENS].
size_t shared_size(const ggml_tensor * dst) {
    const int64_t n_tokens = std::min(AT_ONCE, dst->src[1]->ne[1]);
    return sizeof(activation_block) * ((n_tokens + TOKENS - 1) / TOKENS * TOKENS) * n_blocks(dst) + APART;
}

// Weights of a thread: [ROWS / GROUP][blocks or halves].
size_t thread_size(const ggml_tensor * dst) { return 2 * sizeof(weight_block<6>) * ROWS / GROUP * n_blocks(dst) + APART; }

// A block of 32 values before its bytes are spread: w, and d and m, of each half if they differ.
struct values {
    uint8_t w[BLOCK];
    float   d[2];
    float   m[2];

    values(float d0, float m0) : d{ d0, 0.0f }, m{ m0, 0.0f } {}
};

float f32(ggml_half x) { return GGML_CPU_FP16_TO_FP32(x); }

// Sixteen bytes hold two values each, the first sixteen in the low halves; qh, if any, the fifth bit of each.
void unpack_halves(const uint8_t * qs, const uint8_t * qh, uint8_t * w) {
    for (int i = 0; i < 16; ++i) {
        w[i]      = qs[i] & 15;
        w[i + 16] = qs[i] >> 4;
    }
    uint32_t bits = 0;
    if (qh) {
        memcpy(&bits, qh, sizeof(bits));
        for (int i = 0; i < 32; ++i) {
            w[i] |= (bits >> i & 1) << 4;
        }
    }
}

values values_of(const block_q4_0 & b) {
    values v(f32(b.d), -8 * f32(b.d));
    unpack_halves(b.qs, nullptr, v.w);
    return v;
}

values values_of(const block_q4_1 & b) {
    values v(f32(b.d), f32(b.m));
    unpack_halves(b.qs, nullptr, v.w);
    return v;
}

values values_of(const block_q5_0 & b) {
    values v(f32(b.d), -16 * f32(b.d));
    unpack_halves(b.qs, b.qh, v.w);
    return v;
}

values values_of(const block_q5_1 & b) {
    values v(f32(b.d), f32(b.m));
    unpack_halves(b.qs, b.qh, v.w);
    return v;
}

values values_of(const block_q8_0 & b) {
    values v(f32(b.d), -UNSIGNED * f32(b.d));
    for (int i = 0; i < BLOCK; ++i) {
        v.w[i] = (uint8_t) (b.qs[i] + UNSIGNED);
    }
    return v;
}

// Block `at` of the eight of a K-quant: scales and minima have six bits, those of blocks 4 to 7 in two pieces.
template <typename Super> values scaled_block(const Super & b, int at) {
    const uint8_t * s     = b.scales;
    const int       scale = at < 4 ? s[at] & 63     : (s[at + 4] & 15) | (s[at - 4] >> 6 << 4);
    const int       least = at < 4 ? s[at + 4] & 63 : (s[at + 4] >> 4) | (s[at]     >> 6 << 4);
    values v(f32(b.d) * scale, -f32(b.dmin) * least);
    for (int i = 0; i < BLOCK; ++i) {
        v.w[i] = b.qs[at / 2 * BLOCK + i] >> at % 2 * 4 & 15;
    }
    return v;
}

values values_of(const block_q4_K & b, int at) { return scaled_block(b, at); }

values values_of(const block_q5_K & b, int at) {
    values v = scaled_block(b, at);
    for (int i = 0; i < BLOCK; ++i) {
        v.w[i] |= (b.qh[i] >> at & 1) << 4;
    }
    return v;
}

// Four blocks share the bytes of their upper two bits, two of them those of the lower four.
values values_of(const block_q6_K & b, int at) {
    const uint8_t * low    = b.ql + at / 4 * 64 + at % 2 * 32;
    const uint8_t * high   = b.qh + at / 4 * 32;
    const int8_t  * scales = b.scales + at * 2;
    values v(0.0f, 0.0f);
    for (int i = 0; i < BLOCK; ++i) {
        v.w[i] = (low[i] >> at % 4 / 2 * 4 & 15) | (high[i] >> at % 4 * 2 & 3) << 4;
    }
    for (int p = 0; p < 2; ++p) {
        v.d[p] = f32(b.d) * scales[p];
        v.m[p] = -32 * v.d[p];
    }
    return v;
}

values values_of(ggml_type type, const char * row, int64_t b) {
    switch (type) {
        case GGML_TYPE_Q4_0: return values_of(((const block_q4_0 *) row)[b]);
        case GGML_TYPE_Q4_1: return values_of(((const block_q4_1 *) row)[b]);
        case GGML_TYPE_Q5_0: return values_of(((const block_q5_0 *) row)[b]);
        case GGML_TYPE_Q5_1: return values_of(((const block_q5_1 *) row)[b]);
        case GGML_TYPE_Q8_0: return values_of(((const block_q8_0 *) row)[b]);
        case GGML_TYPE_Q4_K: return values_of(((const block_q4_K *) row)[b / 8], b % 8);
        case GGML_TYPE_Q5_K: return values_of(((const block_q5_K *) row)[b / 8], b % 8);
        default:             return values_of(((const block_q6_K *) row)[b / 8], b % 8);
    }
}

template <int bits> void unpack(ggml_type type, const char * row, int64_t n, int64_t r, weight_block<bits> * out) {
    for (int64_t b = 0; b < n; ++b) {
        const values v = values_of(type, row, b);
        for (int64_t p = 0; p < parts_of(bits); ++p, ++out) {
            for (int64_t s = 0; s < STEPS / parts_of(bits); ++s) {
                memcpy(out->w[s][r], v.w + (p * STEPS / parts_of(bits) + s) * STEP, STEP);
            }
            out->d[r] = v.d[p];
            out->m[r] = v.m[p];
        }
    }
}

// The largest of 32 values, without its sign.
float most_of(const float * x) {
    float most[8] = {};
    for (int i = 0; i < BLOCK; i += 8) {
        for (int j = 0; j < 8; ++j) {
            const float size = fabsf(x[i + j]);
            most[j] = most[j] > size ? most[j] : size;
        }
    }
    return *std::max_element(most, most + 8);
}

void round_block(const float * x, float scale, int8_t * a) {
#if defined(__AVX2__)
    __m256i v[4];
    for (int i = 0; i < 4; ++i) {
        v[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(scale)));
    }
    // packing goes by halves of 128 bits
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    _mm256_storeu_si256((__m256i *) a, _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
#else
    for (int i = 0; i < BLOCK; i += 8) {
        const int32x4_t low  = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i), scale));
        const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + i + 4), scale));
        vst1_s8(a + i, vmovn_s16(vcombine_s16(vmovn_s32(low), vmovn_s32(high))));
    }
#endif
}

// Of a token; those of its neighbours lie between its blocks.
void round_activations(const float * x, int64_t n, activation_block * out) {
    for (int64_t b = 0; b < n; ++b, x += BLOCK, out += TOKENS) {
        const float d = most_of(x) / 127.0f;
        round_block(x, d == 0.0f ? 0.0f : 1.0f / d, out->a);
        int sums[2] = {};
        for (int i = 0; i < BLOCK / 2; ++i) {
            sums[0] += out->a[i];
            sums[1] += out->a[i + BLOCK / 2];
        }
        out->d       = d;
        out->sum     = d * (sums[0] + sums[1]);
        out->sums[0] = d * sums[0];
        out->sums[1] = d * sums[1];
    }
}

int32_t step_of(const activation_block & block, int64_t s) {
    int32_t four;
    memcpy(&four, block.a + s * STEP, STEP);
    return four;
}

// Two products of at most (2^bits - 1) * 127 are added so often in 16 bits.
constexpr int64_t run_of(int bits) { return bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }

// GCC orders sums of integers anew, and runs out of registers, unless told that each is looked at here.
#if defined(__GNUC__)
#define HOLD(x) __asm__("" : "+v"(x))
#else
#define HOLD(x)
#endif

// Products of a group of rows with T tokens.
#if defined(__AVX512F__) && defined(__AVX512BW__)
template <int bits, int T>
void multiply(const weight_block<bits> * weights, const activation_block * x, int64_t n, float * const * to) {
    constexpr int64_t PARTS = parts_of(bits);
    __m512 sums[T];
    for (int t = 0; t < T; ++t) {
        sums[t] = _mm512_setzero_ps();
    }
    for (int64_t b = 0; b < PARTS * n; ++b, x += b % PARTS ? 0 : TOKENS) {
        const int64_t part = b % PARTS;
        const int64_t from = part * STEPS / PARTS;
        __m512i products[T];
        for (int t = 0; t < T; ++t) {
            products[t] = _mm512_setzero_si512();
        }
#if defined(__AVX512VNNI__)
        for (int64_t s = 0; s < STEPS / PARTS; ++s) {
            const __m512i w = _mm512_loadu_si512(weights[b].w[s]);
            for (int t = 0; t < T; ++t) {
                products[t] = _mm512_dpbusd_epi32(products[t], w, _mm512_set1_epi32(step_of(x[t], from + s)));
            }
        }
#else
        for (int64_t first = 0; first < STEPS / PARTS; first += run_of(bits)) {
            __m512i run[T];
            for (int t = 0; t < T; ++t) {
                run[t] = _mm512_setzero_si512();
            }
            for (int64_t s = first; s < first + run_of(bits); ++s) {
                const __m512i w = _mm512_loadu_si512(weights[b].w[s]);
                for (int t = 0; t < T; ++t) {
                    run[t] = _mm512_add_epi16(run[t], _mm512_maddubs_epi16(w, _mm512_set1_epi32(step_of(x[t], from + s))));
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
            sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(products[t]), _mm512_set1_ps(x[t].d)), d, sums[t]);
            sums[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(PARTS == 1 ? x[t].sum : x[t].sums[part]), sums[t]);
        }
    }
    for (int t = 0; t < T; ++t) {
        _mm512_storeu_ps(to[t], sums[t]);
    }
}
#elif defined(__AVX2__)
// Sums of two products of w, without a sign but if of eight bits, and a.
template <int bits> __m256i multiply_bytes(__m256i w, __m256i a) {
    return bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w)) : _mm256_maddubs_epi16(w, a);
}

template <int bits, int T>
void multiply(const weight_block<bits> * weights, const activation_block * x, int64_t n, float * const * to) {
    constexpr int64_t PARTS = parts_of(bits);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sums[T][2];
    for (int t = 0; t < T; ++t) {
        sums[t][0] = sums[t][1] = _mm256_setzero_ps();
    }
    for (int64_t b = 0; b < PARTS * n; ++b, x += b % PARTS ? 0 : TOKENS) {
        const int64_t part = b % PARTS;
        const int64_t from = part * STEPS / PARTS;
        __m256i products[T][2];
        for (int64_t first = 0; first < STEPS / PARTS; first += run_of(bits)) {
            __m256i run[T][2];
            for (int t = 0; t < T; ++t) {
                run[t][0] = run[t][1] = _mm256_setzero_si256();
            }
            for (int64_t s = first; s < first + run_of(bits); ++s) {
                const __m256i w0 = _mm256_loadu_si256((const __m256i *) weights[b].w[s][0]);
                const __m256i w1 = _mm256_loadu_si256((const __m256i *) weights[b].w[s][8]);
                for (int t = 0; t < T; ++t) {
                    const __m256i a = _mm256_set1_epi32(step_of(x[t], from + s));
                    run[t][0] = _mm256_add_epi16(run[t][0], multiply_bytes<bits>(w0, a));
                    run[t][1] = _mm256_add_epi16(run[t][1], multiply_bytes<bits>(w1, a));
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
                sums[t][h] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(products[t][h]), _mm256_set1_ps(x[t].d)), d, sums[t][h]);
                if (bits < 8) {
                    sums[t][h] = _mm256_fmadd_ps(m, _mm256_set1_ps(PARTS == 1 ? x[t].sum : x[t].sums[part]), sums[t][h]);
                }
            }
        }
    }
    for (int t = 0; t < T; ++t) {
        _mm256_storeu_ps(to[t],     sums[t][0]);
        _mm256_storeu_ps(to[t] + 8, sums[t][1]);
    }
}
#else
template <int bits, int T>
void multiply(const weight_block<bits> * weights, const activation_block * x, int64_t n, float * const * to) {
    constexpr int64_t PARTS = parts_of(bits);
    for (int64_t row = 0; row < GROUP; row += 8) {
        float32x4_t sums[T][2];
        for (int t = 0; t < T; ++t) {
            sums[t][0] = sums[t][1] = vdupq_n_f32(0.0f);
        }
        for (int64_t b = 0; b < PARTS * n; ++b) {
            const activation_block * a = x + b / PARTS * TOKENS;
            int32x4_t products[T][2];
            for (int t = 0; t < T; ++t) {
                products[t][0] = products[t][1] = vdupq_n_s32(0);
            }
            for (int64_t s = 0; s < STEPS / PARTS; ++s) {
                const int8x16_t w0 = vld1q_s8((const int8_t *) weights[b].w[s][row]);
                const int8x16_t w1 = vld1q_s8((const int8_t *) weights[b].w[s][row + 4]);
                for (int t = 0; t < T; ++t) {
                    const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(step_of(a[t], b % PARTS * STEPS / PARTS + s)));
                    products[t][0] = vdotq_s32(products[t][0], w0, four);
                    products[t][1] = vdotq_s32(products[t][1], w1, four);
                }
            }
            for (int h = 0; h < 2; ++h) {
                const float32x4_t d = vld1q_f32(weights[b].d + row + 4 * h);
                const float32x4_t m = vld1q_f32(weights[b].m + row + 4 * h);
                for (int t = 0; t < T; ++t) {
                    sums[t][h] = vfmaq_f32(sums[t][h], vmulq_n_f32(vcvtq_f32_s32(products[t][h]), a[t].d), d);
                    sums[t][h] = vfmaq_n_f32(sums[t][h], m, PARTS == 1 ? a[t].sum : a[t].sums[b % PARTS]);
                }
            }
        }
        for (int t = 0; t < T; ++t) {
            vst1q_f32(to[t] + row,     sums[t][0]);
            vst1q_f32(to[t] + row + 4, sums[t][1]);
        }
    }
}
#endif

template <int bits, int T = TOKENS>
void multiply_some(int64_t n_tokens, const weight_block<bits> * weights, const activation_block * x, int64_t n, float * const * to) {
    if (n_tokens == T) {
        multiply<bits, T>(weights, x, n, to);
    } else if constexpr (T > 1) {
        multiply_some<bits, T - 1>(n_tokens, weights, x, n, to);
    }
}

// Rows from `row` on, at most ROWS, with tokens from `first` on.
template <int bits> void compute_rows(ggml_tensor * dst, int64_t row, int64_t first, int64_t n_tokens, const activation_block * x, char * scratch) {
    const ggml_tensor * w = dst->src[0];

    weight_block<bits> * weights = (weight_block<bits> *) scratch;

    const int64_t n        = n_blocks(dst);
    const int64_t n_each   = n * parts_of(bits);
    const int64_t n_rows   = std::min(ROWS, w->ne[1] - row);
    const int64_t n_groups = (n_rows + GROUP - 1) / GROUP;

    if (n_rows % GROUP) {
        std::fill((char *) (weights + (n_groups - 1) * n_each), (char *) (weights + n_groups * n_each), 0);
    }
    for (int64_t r = 0; r < n_rows; ++r) {
        unpack(w->type, (const char *) w->data + (row + r) * w->nb[1], n, r % GROUP, weights + r / GROUP * n_each);
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
            multiply_some<bits>(some, weights + g * n_each, x + t * n, n, to);
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
    char *             weights = (char *) params->wdata + shared_size(dst) + params->ith * thread_size(dst);
    const int          bits    = bits_of(dst->src[0]->type);
    const auto         compute = bits == 4 ? compute_rows<4> : bits == 5 ? compute_rows<5> : bits == 6 ? compute_rows<6> : compute_rows<8>;

    for (int64_t first = 0; first < x->ne[1]; first += AT_ONCE) {
        const int64_t n_tokens = std::min(AT_ONCE, x->ne[1] - first);

        ggml_barrier(params->threadpool); // nobody reads those of the tokens before any more
        for (int64_t t = params->ith; t < n_tokens; t += params->nth) {
            const float * row = (const float *) ((const char *) x->data + (first + t) * x->nb[1]);
            round_activations(row, n, rounded + t / TOKENS * TOKENS * n + t % TOKENS);
        }
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        for (int64_t chunk = params->ith; chunk < n_chunks; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            compute(dst, chunk * ROWS, first, n_tokens, rounded, weights);
        }
    }
    return true;
}

#else

size_t ggml_int8_gemm_work_size(const ggml_tensor *, int) { return 0; }
bool   ggml_compute_forward_int8_gemm(const ggml_compute_params *, ggml_tensor *) { return false; }

#endif
