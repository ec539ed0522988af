#pragma once

// Group attention in a context: the C interface, and what llama_context calls. See llama-group-attn.h for the positions.

#include "llama.h"
#include "llama-group-attn.h"

#ifdef __cplusplus
extern "C" {
#endif

    enum llama_group_attn_status {
        LLAMA_GROUP_ATTN_OK           =  0,
        LLAMA_GROUP_ATTN_INVALID      = -1, // n < 1, w < 1, r is not a multiple of n, too many levels or out of order
        LLAMA_GROUP_ATTN_MEMORY       = -2, // the memory of this model holds no keys that can be regrouped
        LLAMA_GROUP_ATTN_NO_ROPE      = -3, // the model has no rotary positions
        LLAMA_GROUP_ATTN_ROPE_KIND    = -4, // the keys can't be shifted (RoPE dimensions that differ by layer, images in the cache)
        LLAMA_GROUP_ATTN_STREAMS      = -5, // the sequences have KV caches of their own (needs kv_unified)
        LLAMA_GROUP_ATTN_SHARED_CELLS = -6, // sequences share cells (see llama_memory_seq_cp)
        LLAMA_GROUP_ATTN_ARCH         = -7, // the keys of this architecture aren't plain rotations
        LLAMA_GROUP_ATTN_SELF_TEST    = -8, // an architecture that nobody tested, and moving its keys changes what it says
        LLAMA_GROUP_ATTN_POOLING      = -9, // embeddings are pooled over a text (MEAN, CLS, RANK)
        LLAMA_GROUP_ATTN_TEMPERATURE  = -10, // the model has an attention temperature of its own
        LLAMA_GROUP_ATTN_INVALID_RECALL = -11, // r, n_sinks or n_fetched is no multiple of n_span, or a sliding window is wider than w
        LLAMA_GROUP_ATTN_FLASH_ATTN   = -12, // recall without flash attention
        LLAMA_GROUP_ATTN_SEQUENCES    = -13, // recall in a context of several sequences
        LLAMA_GROUP_ATTN_QUANTIZED    = -14, // recall with a quantised K on a GPU: there it chose other spans than the reference
    };

    // Read far keys in groups, from the nearest level to the farthest: each n and r a multiple of the one before, no w
    // smaller. One level is the form of the paper; n = 1 turns it off. Can be changed at any time: the keys in the cache are
    // moved with the next decode
    // A draft that has a cache of its own needs the same call on its context
    // Returns LLAMA_GROUP_ATTN_OK, or the reason why nothing was changed
    LLAMA_API int32_t llama_set_group_attn(
                       struct llama_context * ctx,
        const struct llama_group_attn_level * levels,
                                    int32_t   n_levels);

    // Returns the number of levels, and writes at most n_max of them
    LLAMA_API int32_t llama_get_group_attn(
           const struct llama_context * ctx,
        struct llama_group_attn_level * levels,
                              int32_t   n_max);

    // How far the logits of a short text move if keys and queries are all rotated for positions farther on, as a share of their
    // spread: next to nothing where keys are plain rotations, as group attention needs them. < 0: it can't be computed
    // llama_set_group_attn does this once for a model of an architecture that isn't known to it
    LLAMA_API float llama_group_attn_self_test(const struct llama_context * ctx);

    // The reason in a sentence's words, of any llama_group_attn_status
    LLAMA_API const char * llama_group_attn_reason(int32_t status);

    enum llama_groups_verdict {
        LLAMA_GROUPS_UNKNOWN =  0, // nobody tested it: llama_set_group_attn runs the self-test
        LLAMA_GROUPS_TESTED  =  1,
        LLAMA_GROUPS_REFUSED = -1,
    };

    // What is known of an architecture, by its name in GGUF files
    // reason: receives why it is refused, else null; may be null
    LLAMA_API int32_t llama_group_attn_arch(const char * name, const char ** reason);

#ifdef __cplusplus
}

struct llama_batch_ext;
struct llama_memory_i;
struct llama_ubatch;

struct llama_group_attn_calls {
    // can this batch be decoded under group attention?
    static bool check(const llama_context & ctx, const llama_batch_ext & batch);

    // move the keys that the borders of this ubatch group or ungroup
    static bool step(llama_context & ctx, const llama_ubatch & ubatch);

    // can sequences share cells of this memory? logs why not
    static bool may_share(llama_memory_i * mem);

    // returns llama_group_attn_status
    static int32_t set(llama_context & ctx, const llama_group_attn & value);

    // see llama_group_attn_self_test. noise: receives how far they move if the text is cut into other batches
    static float self_test(const llama_context & ctx, float & noise);

    // see llama-group-attn-env.cpp
    static void from_environment(llama_context & ctx);

    // see llama-attn-temperature.h
    static int32_t set_temperature(llama_context & ctx, float c);

    // see llama-recall.h
    static int32_t set_recall(llama_context & ctx, const llama_recall_params & params);

    static int32_t recall_fetched(llama_context & ctx, int32_t il, int32_t * spans, float * shares, int32_t n_max);

private:
    static int32_t refusal(llama_context & ctx);

    static void apply(llama_context & ctx, const llama_group_attn & value);
};
#endif
