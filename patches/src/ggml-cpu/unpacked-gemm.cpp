#include "unpacked-gemm.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "simd-gemm.h"

#include <algorithm>
#include <cstring>

namespace {

constexpr int64_t ROWS       = 48;   // of weights, unpacked at once: a multiple of what simd_gemm takes, 4 or 6
constexpr int64_t TOKENS     = 64;   // of a panel
constexpr int64_t DEPTH      = 1024; // values of a row, unpacked at once: what a second-level cache holds of a panel
constexpr int64_t AT_ONCE    = 512;  // tokens whose activations are transposed together
constexpr int64_t MIN_TOKENS = 32;   // fewer don't repay the unpacking
constexpr int64_t APART      = 64;   // floats between the scratch memories of two threads

bool supports(const ggml_tensor * dst) {
#if defined(__AVX2__)
    const ggml_tensor * w = dst->src[0];
    const ggml_tensor * x = dst->src[1];

    return (w->type == GGML_TYPE_Q4_1 || w->type == GGML_TYPE_Q5_1) && x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float)
        && x->ne[1] >= MIN_TOKENS && ggml_nrows(x) == x->ne[1] && ggml_nrows(w) == w->ne[1];
#else
    // where f32 products are no faster than those of bytes, unpacking gains nothing
    GGML_UNUSED(dst);
    return false;
#endif
}

int64_t padded(int64_t n) { return (n + TOKENS - 1) / TOKENS * TOKENS; }

// Activations, transposed, for all threads.
size_t shared_floats(const ggml_tensor * dst) {
    return dst->src[1]->ne[0] * padded(std::min(AT_ONCE, dst->src[1]->ne[1]));
}

// Weights and sums of a thread.
size_t floats(const ggml_tensor * dst) {
    return ROWS * std::min(DEPTH, dst->src[0]->ne[0]) + ROWS * padded(std::min(AT_ONCE, dst->src[1]->ne[1])) + APART;
}

// Activations of a panel of tokens, token by token in each: [n_values][TOKENS].
void transpose(const ggml_tensor * x, int64_t first, int64_t n, float * panel) {
    for (int64_t t = 0; t < TOKENS; ++t) {
        const float * from = (const float *) ((const char *) x->data + (first + t) * x->nb[1]);
        for (int64_t i = 0; i < x->ne[0]; ++i) {
            panel[i * TOKENS + t] = t < n ? from[i] : 0.0f;
        }
    }
}

} // namespace

size_t ggml_unpacked_gemm_work_size(const ggml_tensor * dst, int n_threads) {
    return supports(dst) ? sizeof(float) * (shared_floats(dst) + APART + floats(dst) * n_threads) : 0;
}

bool ggml_compute_forward_unpacked_gemm(const ggml_compute_params * params, ggml_tensor * dst) {
    if (!supports(dst)) {
        return false;
    }
    const ggml_tensor * w = dst->src[0];
    const ggml_tensor * x = dst->src[1];

    const int64_t n_values = w->ne[0];
    const int64_t n_chunks = (w->ne[1] + ROWS - 1) / ROWS;
    const auto    unpack   = ggml_get_type_traits(w->type)->to_float;

    float * panels  = (float *) params->wdata;                                             // [panel][n_values][TOKENS]
    float * weights = panels + shared_floats(dst) + APART + params->ith * floats(dst);      // [ROWS][DEPTH]
    float * sums    = weights + ROWS * std::min(DEPTH, n_values);                           // [panel][ROWS][TOKENS]

    for (int64_t first = 0; first < x->ne[1]; first += AT_ONCE) {
        const int64_t n_tokens = std::min(AT_ONCE, x->ne[1] - first);
        const int64_t n_panels = padded(n_tokens) / TOKENS;

        ggml_barrier(params->threadpool); // nobody reads the panels of the tokens before any more
        for (int64_t p = params->ith; p < n_panels; p += params->nth) {
            transpose(x, first + p * TOKENS, std::min(TOKENS, n_tokens - p * TOKENS), panels + p * TOKENS * n_values);
        }
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        for (int64_t chunk = params->ith; chunk < n_chunks; chunk = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t row    = chunk * ROWS;
            const int64_t n_rows = std::min(ROWS, w->ne[1] - row);

            std::fill(sums, sums + n_panels * ROWS * TOKENS, 0.0f);
            for (int64_t at = 0; at < n_values; at += DEPTH) {
                const int64_t depth = std::min(DEPTH, n_values - at);
                for (int64_t r = 0; r < n_rows; ++r) {
                    unpack((const char *) w->data + (row + r) * w->nb[1] + ggml_row_size(w->type, at), weights + r * depth, depth);
                }
                for (int64_t p = 0; p < n_panels; ++p) {
                    simd_gemm(sums + p * ROWS * TOKENS, weights, panels + (p * n_values + at) * TOKENS, n_rows, depth, TOKENS);
                }
            }
            for (int64_t t = 0; t < n_tokens; ++t) {
                const float * from = sums + t / TOKENS * ROWS * TOKENS + t % TOKENS;
                float       * to   = (float *) ((char *) dst->data + (first + t) * dst->nb[1]) + row;
                for (int64_t r = 0; r < n_rows; ++r) {
                    to[r] = from[r * TOKENS];
                }
            }
        }
    }
    return true;
}
