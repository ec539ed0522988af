// See llama-attn-temperature.h.

#include "llama-attn-temperature.h"

#include "llama-context.h"
#include "llama-graph.h"
#include "llama-group-attn-api.h"
#include "llama-impl.h"
#include "llama-kv-keys.h"
#include "llama-model.h"

#include <cmath>

namespace {

class llm_graph_input_temperature : public llm_graph_input_i {
public:
    llm_graph_input_temperature(float c, int32_t window) : c(c), window(window) {}

    void set_input(const llama_ubatch * ubatch) override {
        std::vector<float> data(ubatch->n_tokens);

        for (uint32_t i = 0; i < ubatch->n_tokens; ++i) {
            data[i] = 1.0f + c*std::log(std::max(1.0f, (ubatch->pos[i] + 1.0f)/window));
        }

        ggml_backend_tensor_set(factor, data.data(), 0, ggml_nbytes(factor));
    }

    bool can_reuse(const llm_graph_params & params) override {
        c      = params.cparams.group_attn.temperature;
        window = params.cparams.group_attn.window;

        return c != 0.0f && factor->ne[2] == params.ubatch.n_tokens;
    }

    float   c;
    int32_t window;

    ggml_tensor * factor = nullptr; // F32 [1, 1, n_tokens]
};

} // namespace

ggml_tensor * llama_attn_temperature(const llm_graph_context & graph, ggml_tensor * q, int il) {
    const auto & scheme = graph.cparams.group_attn;

    if (scheme.temperature == 0.0f || graph.hparams.is_swa(il)) {
        return q;
    }

    llm_graph_input_temperature * inp = nullptr;

    for (const auto & input : graph.res->inputs) {
        auto * other = dynamic_cast<llm_graph_input_temperature *>(input.get());

        inp = other ? other : inp;
    }

    if (!inp) {
        auto fresh = std::make_unique<llm_graph_input_temperature>(scheme.temperature, scheme.window);

        fresh->factor = ggml_new_tensor_3d(graph.ctx0, GGML_TYPE_F32, 1, 1, q->ne[2]);
        ggml_set_input(fresh->factor);

        inp = (llm_graph_input_temperature *) graph.res->add_input(std::move(fresh));
    }

    return ggml_mul(graph.ctx0, q, inp->factor);
}

int32_t llama_set_attn_temperature(llama_context * ctx, float c) {
    return llama_group_attn_calls::set_temperature(*ctx, c);
}

float llama_get_attn_temperature(const llama_context * ctx) {
    return ctx->get_cparams().group_attn.temperature;
}

int32_t llama_group_attn_calls::set_temperature(llama_context & ctx, float c) {
    const auto & hparams = ctx.model.hparams;

    auto & scheme = ctx.cparams.group_attn;

    const int32_t status =
        !(c >= 0.0f && c <= 10.0f)                                                  ? LLAMA_GROUP_ATTN_INVALID :
        c == 0.0f                                                                   ? LLAMA_GROUP_ATTN_OK :
        llama_kv_keys_of(ctx.memory.get()).empty()                                  ? LLAMA_GROUP_ATTN_MEMORY :
        hparams.f_attn_temp_scale != 0.0f || hparams.n_attn_temp_floor_scale != 0 ||
        hparams.attn_temp_length != 0                                               ? LLAMA_GROUP_ATTN_TEMPERATURE :
                                                                                      LLAMA_GROUP_ATTN_OK;

    if (status != LLAMA_GROUP_ATTN_OK) {
        LLAMA_LOG_ERROR("%s: an attention temperature is refused: %s\n", __func__, llama_group_attn_reason(status));
        return status;
    }

    // graphs without the factor can't be used again with it
    if ((scheme.temperature == 0.0f) != (c == 0.0f)) {
        ctx.sched_need_reserve = true;
    }

    scheme.temperature = c;
    scheme.window      = ctx.model.hparams.n_ctx_train;

    ctx.balloc->group_attn = scheme;

    return LLAMA_GROUP_ATTN_OK;
}
