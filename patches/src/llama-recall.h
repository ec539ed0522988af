#pragma once

// Recall: far text that is fetched instead of grouped. Near keys keep their exact distance. Of the keys before the border a
// layer attends to the first ones (sinks) and to those spans that the queries of a step look at most, in the order of
// the text, at consecutive positions before the near ones. Relatives: InfLLM (arXiv:2402.04617), TokenSelect (arXiv:2411.02886).
//
// Keys lie unrotated in the cache and are turned after they are gathered, near ones too: what the cache holds of a text depends on
// the text and on where its micro-batches ended, and on nothing that was read and rolled back since.
// As long as nothing has to be left out there is no border, and the graph is the plain one.

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

    struct llama_recall_params {
        int32_t w;         // keys nearer than this are always exact: between w + 1 and w + r of them
        int32_t r;         // step of the border. the queries between two steps choose together
        int32_t n_sinks;   // the first tokens of the text, always attended to
        int32_t n_fetched; // far tokens attended to besides. 0: off
        int32_t n_span;    // length of what is fetched as one. r, n_sinks, n_fetched and n_first are multiples of it
        int32_t n_stretch; // of so many neighbouring queries one looks for spans, that of the rarest token
        int32_t n_each;    // if at most so many tokens of a step are read together, each of them looks
        int32_t n_first;   // far tokens of which all keys are compared. of more, the spans with the best mean keys. 0: of all
        int32_t n_keep;    // so many tokens that are decoded one by one share a choice
    };

    // Sets recall instead of any groups, or turns both off (params null, or n_fetched 0). Can be changed at any time: the keys in
    // the cache are moved with the next decode
    // Needs flash attention and a context of one sequence
    // Returns LLAMA_GROUP_ATTN_OK, or the reason why nothing was changed (llama_group_attn_reason() has words for it)
    LLAMA_API int32_t llama_set_recall(struct llama_context * ctx, const struct llama_recall_params * params);

    // n_fetched is 0 while it is off
    LLAMA_API struct llama_recall_params llama_get_recall(const struct llama_context * ctx);

    // What a layer fetched at its last choice, in the order of the text: spans[i] is tokens spans[i]*n_span and on, shares[i] the
    // largest share of attention that one of the queries gave to a token of it, of all far text that was compared, summed over heads
    // Writes at most n_max of them. Returns how many there are: 0 for a layer that fetches nothing, and while nothing is left out
    LLAMA_API int32_t llama_recall_fetched(struct llama_context * ctx, int32_t il, int32_t * spans, float * shares, int32_t n_max);

#ifdef __cplusplus
}

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

struct ggml_tensor;
struct llama_cparams;
struct llama_hparams;
struct llama_k_copies;
struct llama_kv_keys;
class  llama_kv_cache_context;
struct llm_graph_context;

// What a cache holds for recall besides its keys and values: the mean key of each far span, and what each layer attends to while
// tokens are decoded one by one, in the order of the text: sinks, fetched and near. A graph that fails leaves notes of keys that are
// gone: they are recognised by the keys' ids.
struct llama_recall_memory {
    explicit llama_recall_memory(const llama_recall_params & params) : params(params) {}

    const llama_recall_params params;

    // by layer of the cache
    std::shared_ptr<llama_k_copies> means; // [n_embd_k_gqa, n_spans], null if all keys are compared
    std::shared_ptr<llama_k_copies> k;     // [n_embd_k_gqa, n_all]
    std::shared_ptr<llama_k_copies> v;     // [n_embd_v_gqa, n_all]
    std::shared_ptr<llama_k_copies> notes; // F32, at least 2*n_fetched/n_span: the spans of the last choice, and their shares

    bool noted = false; // has any choice been made for the text that is there?

    std::vector<uint64_t> spans;        // the last key of each span whose mean is there
    size_t                n_sure  = 0;  // those that were there before the last micro-batch
    uint64_t              last    = 0;  // the last key of that
    int32_t               end     = -1; // the position behind it
    int32_t               border  = -1; // and its border
    int32_t               chosen  = -1; // where a token that was decoded alone made the last choice

    void forget() { spans.clear(); n_sure = 0; last = 0; end = border = -1; noted = false; }

    void breakdown(std::map<struct ggml_backend_buffer_type *, size_t> & sizes) const;
};

// The new keys f32 [n_embd_head, n_head_kv, n_tokens] as the cache holds them: unrotated once anything is left out
ggml_tensor * llama_recall_key(
        const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * hadamard, ggml_tensor * k, int il);

// Replaces k, v and mask by those of the keys that this layer fetches, and turns q to them, or leaves all alone
// q: [n_embd_head, n_head, n_tokens], k and v: [n_embd_head, n_head_kv, n_kv]
// hadamard: what queries and keys of a quantised cache are multiplied by, else null
void llama_recall_attn(
        const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * hadamard,
        ggml_tensor *& q, ggml_tensor *& k, ggml_tensor *& v, ggml_tensor *& mask, float kq_scale, int il);

// how many nodes the graph of a context grows by
uint32_t llama_recall_max_nodes(const llama_cparams & cparams, const llama_hparams & hparams);
#endif
