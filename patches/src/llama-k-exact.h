#pragma once

// Writes exact copies of the keys beside a quantised cache (see llama-kv-keys.h), in the graph of the micro-batch.

#include <cstdint>

class llama_kv_cache_context;

struct ggml_tensor;
struct llm_graph_context;

// call beside every cpy_k of a cache whose keys may be grouped. k_cur: [n_embd_head_k, n_head_kv, n_tokens]
void llama_k_exact_copy(const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * k_cur, int32_t il);
