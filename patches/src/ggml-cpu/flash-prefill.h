#pragma once

// Flash attention of many queries on a CPU: what reading a long prompt spends its time on.
//
// ggml's own kernel converts and transposes each tile of keys again for every 64 queries of every head, one value at a
// time, and looks at each value of the mask; for caches that are neither f16 nor f32 it takes one query at a time. Here
// a tile of keys and values of any type is unpacked once for all the query heads that share it and for as many queries
// as fit a core's cache, and a tile of the mask that hides nothing, or everything, is known from its bits.
//
// Each query's result depends on its own keys and mask alone, not on which queries are computed beside it.
//
// Must not know: positions, llama.

#include "ggml.h"

#include <stddef.h>

struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// Whether dst, a GGML_OP_FLASH_ATTN_EXT, is of the kind that this file computes: at least 32 queries, one mask for all
// heads, no ALiBi.
bool ggml_flash_prefill_supports(const struct ggml_tensor * dst);

// The scratch memory for `n_threads`, in bytes; 0 if not supported.
size_t ggml_flash_prefill_work_size(const struct ggml_tensor * dst, int n_threads);

// Computes dst, called on every thread.
void ggml_compute_forward_flash_prefill(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
