#pragma once

// Products of quantised weights with many tokens on a CPU: types of four to eight bits with a scale for 32 or 16 values, each
// of which ggml unpacks again for every token, or for a few. Here some rows of weights are unpacked once, to bytes, and
// multiplied with all tokens as bytes; like ggml's own products of quantised weights, that rounds activations to 8 bits,
// one scale for 32 of them.
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
size_t ggml_int8_gemm_work_size(const struct ggml_tensor * dst, int n_threads);

// Computes dst if it is of that kind, called on every thread; returns whether it was.
bool ggml_compute_forward_int8_gemm(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
