// See llama-k-exact.h.

#include "llama-k-exact.h"

#include "llama-graph.h"
#include "llama-kv-cache.h"
#include "llama-kv-keys.h"

namespace {

class llm_graph_input_k_exact : public llm_graph_input_i {
public:
    explicit llm_graph_input_k_exact(llama_kv_keys & keys) : keys(keys), serial(keys.exact_serial()) {}

    void set_input(const llama_ubatch * ubatch) override {
        std::vector<int64_t> data;

        keys.claim_exact(*ubatch, data);

        ggml_backend_tensor_set(slots, data.data(), 0, ggml_nbytes(slots));
    }

    bool can_reuse(const llm_graph_params & params) override {
        return slots->ne[0] == params.ubatch.n_tokens && serial == keys.exact_serial();
    }

    llama_kv_keys & keys;

    const uint64_t serial; // of the copies that the graph writes to

    ggml_tensor * slots = nullptr; // I64 [n_tokens]
};

} // namespace

void llama_k_exact_copy(const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * k_cur, int32_t il) {
    auto * keys = llama_kv_keys::of(*mctx);

    ggml_tensor * exact = keys->get_exact(il);

    if (!exact) {
        return;
    }

    llm_graph_input_k_exact * inp = nullptr;

    for (const auto & input : graph.res->inputs) {
        auto * other = dynamic_cast<llm_graph_input_k_exact *>(input.get());

        inp = other && &other->keys == keys ? other : inp;
    }

    const int64_t n_tokens = k_cur->ne[2];

    if (!inp) {
        auto fresh = std::make_unique<llm_graph_input_k_exact>(*keys);

        fresh->slots = ggml_new_tensor_1d(graph.ctx0, GGML_TYPE_I64, n_tokens);
        ggml_set_input(fresh->slots);

        inp = (llm_graph_input_k_exact *) graph.res->add_input(std::move(fresh));
    }

    k_cur = ggml_view_2d(graph.ctx0, k_cur, k_cur->ne[0]*k_cur->ne[1], n_tokens, k_cur->nb[2], 0);

    ggml_build_forward_expand(graph.gf, ggml_set_rows(graph.ctx0, exact, k_cur, inp->slots));
}
