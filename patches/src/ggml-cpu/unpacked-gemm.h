#pragma once

// Products of quantised weights with many tokens on a CPU, for types of weights that have no kernel for that there: each
// of their values would be unpacked again for every token. Here a few rows of weights are unpacked once and multiplied
// with all tokens as f32, so that the activations needn't be quantised either.
//
// Models whose width is no multiple of 256 have such weights (Q4_1, Q5_1) where K-quants were asked for.
//
// Each token's result depends on its own activations alone, not on which tokens are computed beside it.
//
// Must not know: llama.

#include <stddef.h>

struct ggml_compute_params;
struct ggml_tensor;

#ifdef __cplusplus
extern "C" {
#endif

// The scratch memory of dst, a GGML_OP_MUL_MAT, for `n_threads`, in bytes; 0 if it is not of the kind that this file computes.
size_t ggml_unpacked_gemm_work_size(const struct ggml_tensor * dst, int n_threads);

// Computes dst if it is of that kind, called on every thread; returns whether it was.
bool ggml_compute_forward_unpacked_gemm(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
