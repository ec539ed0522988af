#pragma once

// Attention temperature: queries beyond the trained window L are multiplied by 1 + c*ln((i + 1)/L), i the place in the text.
// Over more keys than a model was trained with attention spreads; this sharpens it again (YaRN, arXiv:2309.00071; log-n scaling).
// Keys, positions and the cache are left as they are. With c = 0 the graph is the plain one.
//
// Layers with a sliding window see as many keys as ever, and stay. Models that have a temperature of their own are refused.

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

    // Sets c. Can be changed at any time, for the queries from then on
    // Returns LLAMA_GROUP_ATTN_OK (see llama-group-attn-api.h), or the reason why nothing was changed
    LLAMA_API int32_t llama_set_attn_temperature(struct llama_context * ctx, float c);

    LLAMA_API float llama_get_attn_temperature(const struct llama_context * ctx);

#ifdef __cplusplus
}

struct ggml_tensor;
struct llm_graph_context;

// q: [n_embd_head, n_head, n_tokens] -> the same, or multiplied
ggml_tensor * llama_attn_temperature(const llm_graph_context & graph, ggml_tensor * q, int il);
#endif
