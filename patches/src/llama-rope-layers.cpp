// See llama-rope-layers.h.

#include "llama-rope-layers.h"

#include "llama-cparams.h"
#include "llama-hparams.h"
#include "llama-model.h"

static bool has_rope(llm_arch arch, const llama_hparams & hparams, uint32_t il) {
    const uint32_t step = hparams.n_no_rope_layer_step;

    switch (arch) {
        case LLM_ARCH_SMOLLM3:
            return (il + 1) % step != 0;
        case LLM_ARCH_LLAMA4:
        case LLM_ARCH_AFMOE:
            return step > 0 && (il + 1) % step != 0;
        case LLM_ARCH_SMALLTHINKER:
            return step == hparams.n_layer() || il % step != 0;
        case LLM_ARCH_COHERE2:
        case LLM_ARCH_EXAONE_MOE:
        case LLM_ARCH_MAPLE:
        case LLM_ARCH_MUSE_GLIMMER:
            return hparams.is_swa(il);
        case LLM_ARCH_COHERE2MOE:
            return hparams.is_swa(il) || il < hparams.n_layer_dense_lead || il >= hparams.n_layer();
        case LLM_ARCH_EXAONE4:
            return hparams.is_swa(il) || hparams.swa_type == LLAMA_SWA_TYPE_NONE;
        default:
            return true;
    }
}

void llama_rope_layers_load(llm_arch arch, llama_hparams & hparams) {
    for (uint32_t il = 0; il < hparams.n_layer_all; ++il) {
        if (!has_rope(arch, hparams, il)) {
            hparams.rope_pattern[il] = 0;
        }
    }
}

llama_rope_layer llama_rope_layer_get(const llama_model & model, const llama_cparams & cparams, int il) {
    const auto & hparams = model.hparams;

    llama_rope_layer res = {
        /*.type       =*/ hparams.rope_type,
        /*.freq_base  =*/ model.get_rope_freq_base (cparams, il),
        /*.freq_scale =*/ model.get_rope_freq_scale(cparams, il),
        /*.ext_factor =*/ cparams.yarn_ext_factor,
        /*.factors    =*/ model.get_rope_factors(cparams, il),
    };

    switch (model.arch) {
        // local layers rotate as the others do: what the file says of theirs isn't used
        case LLM_ARCH_COHERE2:
        case LLM_ARCH_COHERE2MOE:
        case LLM_ARCH_EXAONE4:
        case LLM_ARCH_EXAONE_MOE:
        case LLM_ARCH_GRANITE_SWA:
        case LLM_ARCH_LFM2:
        case LLM_ARCH_LFM2MOE:
            res.freq_base  = cparams.rope_freq_base;
            res.freq_scale = cparams.rope_freq_scale;
            break;
        // whatever the file or the user says
        case LLM_ARCH_COGVLM:
            res.freq_base  = 10000.0f;
            res.freq_scale = 1.0f;
            res.ext_factor = 0.0f;
            res.factors    = nullptr;
            break;
        case LLM_ARCH_FALCON_H1:
        case LLM_ARCH_PANGU_EMBED:
            res.factors = nullptr;
            break;
        // local layers rotate unscaled
        case LLM_ARCH_MELLUM:
        case LLM_ARCH_OLMO2:
            res.freq_base = cparams.rope_freq_base;
            res.factors   = nullptr;

            if (hparams.is_swa(il)) {
                res.freq_scale = 1.0f;
                res.ext_factor = 0.0f;
            }
            break;
        default:
            break;
    }

    return res;
}
