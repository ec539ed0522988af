#pragma once

// Flash attention on a CPU: what reading and continuing a long text spends its time on.
//
// ggml's own kernels convert each key again for every head, and where there are many queries for every 64 of them, one
// value at a time; they look at each value of the mask, round queries to the type of the keys, and take one query at a
// time if the cache is quantised. Here a tile of keys and values of any type is unpacked once for all the query heads
// that share it and for as many queries as fit a core's cache, and what a tile of the mask hides is known from its bits.
//
// Each query's result depends on its own keys and mask alone: not on the queries and sequences that are computed beside
// it, and not on the number of threads. Fewer than 32 queries of a sequence and more go different ways: few wait for
// memory, so their keys and values are unpacked on the way from it and divided among the threads (flash-attn-few.h).
//
// Must not know: positions, llama.

#include "ggml.h"

#include <stddef.h>

struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// The scratch memory of dst, a GGML_OP_FLASH_ATTN_EXT, for `n_threads`, in bytes; 0 if it is not of the kind that this
// file computes: heads of at most 256 values, one mask for all heads, no ALiBi.
size_t ggml_flash_attn_work_size(const struct ggml_tensor * dst, int n_threads);

// Computes dst if it is of that kind, called on every thread; returns whether it was.
bool ggml_compute_forward_flash_attn(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
