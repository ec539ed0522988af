#pragma once

// How queries share their attention among keys, summed over the heads, and the largest share that one of a few queries gives to
// one of a few keys side by side: MUL_MAT, SOFT_MAX, ADDs of the heads' planes, POOL_2D over queries and POOL_2D over keys as one.
// Apart, those write and read all scores several times, and ggml's product adds up the lanes of a vector for each score.
//
// A tile of keys has the same bits on whichever thread it is computed, so the outcome doesn't depend on their number.
//
// Must not know: llama.

#include <stddef.h>

struct ggml_cgraph;
struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// The scratch memory in bytes, for `n_threads`, of the nodes from `node_n` on; 0 if they are not of the kind that this file computes.
size_t ggml_recall_shares_work_size(const struct ggml_cgraph * cgraph, int node_n, int n_threads);

// Computes them if they are, called on every thread; returns how many nodes behind `node_n` are computed with it, else 0.
int ggml_compute_recall_shares(const struct ggml_compute_params * params, const struct ggml_cgraph * cgraph, int node_n);

#ifdef __cplusplus
}
#endif
