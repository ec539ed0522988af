// Group attention in a context. See llama-group-attn.h for the positions, llama-kv-keys.h for the keys.
//
// The cells keep the text's positions. A step of a border moves keys between rotations, before the micro-batch is computed
// whose queries see them there.

#include "llama-group-attn-api.h"

#include "llama-batch.h"
#include "llama-context.h"
#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-kv-keys.h"
#include "llama-memory.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <utility>

static bool is_valid_scheme(const llama_group_attn & value) {
    const auto & levels = value.levels;

    if (value.n_levels < 1 || value.n_levels > llama_group_attn::MAX_LEVELS || levels[0].n < 1 || levels[0].w < 0) {
        return false;
    }

    for (int32_t k = 0; value.enabled() && k < value.n_levels; ++k) {
        if (levels[k].w < 1 || levels[k].r < 1 || levels[k].r % levels[k].n != 0) {
            return false;
        }

        // a group lies in one group of the next level, and a border never passes the one before
        if (k > 0 && (levels[k].n < 1 || levels[k].n % levels[k - 1].n != 0 || levels[k].r % levels[k - 1].r != 0 || levels[k].w < levels[k - 1].w)) {
            return false;
        }
    }

    return true;
}

// are embeddings pooled over all tokens of a text, of which the last micro-batch alone would be left?
static bool pools_embeddings(const llama_cparams & cparams) {
    const auto type = cparams.pooling_type;

    return cparams.embeddings && (type == LLAMA_POOLING_TYPE_MEAN || type == LLAMA_POOLING_TYPE_CLS || type == LLAMA_POOLING_TYPE_RANK);
}

//
// self-test
//

static bool passes_self_test(const llama_context & ctx) {
    static std::mutex mutex;
    static std::map<std::pair<const llama_model *, std::string>, bool> known;

    const auto & cparams = ctx.get_cparams();
    const auto & model   = ctx.get_model();

    const auto rope = format("%s %g %g %g %g %u", model.desc().c_str(), cparams.rope_freq_base, cparams.rope_freq_scale,
            cparams.yarn_ext_factor, cparams.yarn_attn_factor, cparams.n_ctx_orig_yarn);

    const std::lock_guard<std::mutex> lock(mutex);

    const auto [it, fresh] = known.emplace(std::make_pair(&model, rope), false);

    if (fresh) {
        float noise = 0.0f;

        const float change = llama_group_attn_calls::self_test(ctx, noise);

        it->second = change >= 0.0f && change <= std::max(0.02f, 4*noise);
    }

    return it->second;
}

//
// llama_group_attn_calls
//

int32_t llama_group_attn_calls::refusal(llama_context & ctx) {
    const auto & hparams = ctx.model.hparams;
    const auto   all     = llama_kv_keys_of(ctx.memory.get());

    if (hparams.rope_type == LLAMA_ROPE_TYPE_NONE || hparams.use_alibi) {
        return LLAMA_GROUP_ATTN_NO_ROPE;
    }

    if (all.empty() || ctx.cparams.n_rs_seq > 0) {
        return LLAMA_GROUP_ATTN_MEMORY;
    }

    const auto verdict = llama_group_attn_arch(llm_arch_name(ctx.model.arch), nullptr);

    if (verdict == LLAMA_GROUPS_REFUSED) {
        return LLAMA_GROUP_ATTN_ARCH;
    }

    if (!std::any_of(all.begin(), all.end(), [](const auto * keys) { return keys->has_rope(); })) {
        return LLAMA_GROUP_ATTN_NO_ROPE;
    }

    for (const auto * keys : all) {
        if (!keys->can_move(true) || keys->has_images()) {
            return LLAMA_GROUP_ATTN_ROPE_KIND;
        }

        if (keys->kv.get_n_stream() > 1) {
            return LLAMA_GROUP_ATTN_STREAMS;
        }

        if (keys->has_shared_cells()) {
            return LLAMA_GROUP_ATTN_SHARED_CELLS;
        }
    }

    if (pools_embeddings(ctx.cparams)) {
        return LLAMA_GROUP_ATTN_POOLING;
    }

    if (verdict == LLAMA_GROUPS_UNKNOWN && !hparams.no_alloc && !passes_self_test(ctx)) {
        return LLAMA_GROUP_ATTN_SELF_TEST;
    }

    return LLAMA_GROUP_ATTN_OK;
}

int32_t llama_group_attn_calls::set(llama_context & ctx, const llama_group_attn & value) {
    const int32_t status = !is_valid_scheme(value) ? LLAMA_GROUP_ATTN_INVALID : value.enabled() ? refusal(ctx) : LLAMA_GROUP_ATTN_OK;

    if (status == LLAMA_GROUP_ATTN_OK) {
        apply(ctx, value);
    } else {
        LLAMA_LOG_ERROR("%s: group attention is refused for %s: %s\n", __func__, llm_arch_name(ctx.model.arch), llama_group_attn_reason(status));
    }

    return status;
}

void llama_group_attn_calls::apply(llama_context & ctx, const llama_group_attn & value) {
    auto scheme = value;

    scheme.temperature = ctx.cparams.group_attn.temperature;
    scheme.window      = ctx.cparams.group_attn.window;

    // graphs without the inputs of recall can't be used again with it
    if (scheme.recall.n_fetched != ctx.cparams.group_attn.recall.n_fetched) {
        ctx.sched_need_reserve = true;
    }

    ctx.cparams.group_attn = scheme;
    ctx.balloc->group_attn = scheme;

    for (auto * keys : llama_kv_keys_of(ctx.memory.get())) {
        if (keys->reserve_copies(&ctx, value)) {
            ctx.sched_need_reserve = true;
        }

        keys->reserve_recall(&ctx, value);
        keys->set_group_attn(value);
    }
}

bool llama_group_attn_calls::check(const llama_context & ctx, const llama_batch_ext & batch) {
    const auto all = llama_kv_keys_of(ctx.memory.get());

    if (ctx.cparams.ctx_other && std::any_of(all.begin(), all.end(), [](const auto * keys) { return keys->borrowed(); }) &&
            ctx.cparams.ctx_other->get_cparams().group_attn.enabled()) {
        LLAMA_LOG_ERROR("%s: a draft that shares the cells of its target can't follow its group attention\n", __func__);
        return false;
    }

    if (!ctx.cparams.group_attn.enabled()) {
        return true;
    }

    if (!ctx.cparams.causal_attn) {
        LLAMA_LOG_ERROR("%s: group attention needs causal attention\n", __func__);
        return false;
    }

    if (pools_embeddings(ctx.cparams)) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, llama_group_attn_reason(LLAMA_GROUP_ATTN_POOLING));
        return false;
    }

    for (const auto & token : batch.tokens) {
        if (token.seq_ids.size() > 1) {
            LLAMA_LOG_ERROR("%s: under group attention a token can belong to one sequence only\n", __func__);
            return false;
        }

        // tokens have one position for all dimensions
        if (batch.n_pos_per_embd > 1 && token.id == LLAMA_TOKEN_NULL && (token.pos[1] != token.pos[0] || token.pos[2] != token.pos[0])) {
            LLAMA_LOG_ERROR("%s: group attention reads text only: the positions of images can't be grouped\n", __func__);
            return false;
        }
    }

    return true;
}

bool llama_group_attn_calls::step(llama_context & ctx, const llama_ubatch & ubatch) {
    for (auto * keys : llama_kv_keys_of(ctx.memory.get())) {
        if (!keys->borrowed() && !keys->step(&ctx, ubatch)) {
            LLAMA_LOG_ERROR("%s: failed to move the keys for group attention\n", __func__);
            return false;
        }
    }

    return true;
}

bool llama_group_attn_calls::may_share(llama_memory_i * mem) {
    for (const auto * keys : llama_kv_keys_of(mem)) {
        if (keys->get_group_attn().enabled()) {
            LLAMA_LOG_ERROR("%s: sequences can't share cells under group attention\n", __func__);
            return false;
        }
    }

    return mem != nullptr;
}

//
// self-test
//

// The logits of a token behind a few others must not change when all of them are rotated for positions farther on: it is what
// a step does to keys, and what no layer with other positions than RoPE's stands. Costs three readings of a dozen tokens.
float llama_group_attn_calls::self_test(const llama_context & ctx, float & noise) {
    const auto & cparams = ctx.cparams;

    constexpr int32_t n_tokens = 12;
    constexpr llama_pos offset = 1237;

    auto params = llama_context_default_params();

    params.n_ctx           = 2*n_tokens;
    params.n_batch         = n_tokens;
    params.n_ubatch        = n_tokens;
    params.n_threads       = ctx.cparams.n_threads;
    params.n_threads_batch = ctx.cparams.n_threads_batch;
    params.offload_kqv     = ctx.cparams.offload_kqv;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k          = GGML_TYPE_F32;
    params.type_v          = GGML_TYPE_F32;

    // keys and queries as this context rotates them
    params.rope_scaling_type = cparams.rope_freq_scale == 1.0f ? LLAMA_ROPE_SCALING_TYPE_NONE :
                               cparams.yarn_ext_factor == 0.0f ? LLAMA_ROPE_SCALING_TYPE_LINEAR : LLAMA_ROPE_SCALING_TYPE_YARN;
    params.rope_freq_base    = cparams.rope_freq_base;
    params.rope_freq_scale   = cparams.rope_freq_scale;
    params.yarn_ext_factor   = cparams.yarn_ext_factor;
    params.yarn_beta_fast    = cparams.yarn_beta_fast;
    params.yarn_beta_slow    = cparams.yarn_beta_slow;
    params.yarn_orig_ctx     = cparams.n_ctx_orig_yarn;

    llama_context * scratch = nullptr;

    try {
        scratch = new llama_context(ctx.model, params);
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err.what());
        return -1.0f;
    }

    const uint32_t n_vocab = ctx.model.vocab.n_tokens();

    llama_token tokens[n_tokens];

    for (int32_t i = 0; i < n_tokens; ++i) {
        tokens[i] = (7919u*i + 101u) % n_vocab;
    }

    // the logits of the last token, the ones before it read `cut` and then the rest at a time
    const auto read = [&](int32_t cut, llama_pos moved, std::vector<float> & logits) {
        llama_memory_clear(llama_get_memory(scratch), true);
        apply(*scratch, {});

        bool ok = llama_decode(scratch, llama_batch_get_one(tokens, cut)) == 0;

        if (cut < n_tokens - 1) {
            ok = ok && llama_decode(scratch, llama_batch_get_one(tokens + cut, n_tokens - 1 - cut)) == 0;
        }

        llama_group_attn value;
        value.offset = moved;
        apply(*scratch, value);

        ok = ok && llama_decode(scratch, llama_batch_get_one(tokens + n_tokens - 1, 1)) == 0;

        if (ok) {
            const float * row = llama_get_logits_ith(scratch, -1);

            logits.assign(row, row + n_vocab);
        }

        return ok;
    };

    const auto distance = [](const std::vector<float> & a, const std::vector<float> & b) {
        double sum = 0;
        for (size_t i = 0; i < a.size(); ++i) {
            sum += (double) (a[i] - b[i])*(a[i] - b[i]);
        }
        return std::sqrt(sum/a.size());
    };

    std::vector<float> plain, cut, moved;

    float res = -1.0f;

    if (read(n_tokens - 1, 0, plain) && read(n_tokens/2, 0, cut) && read(n_tokens - 1, offset, moved)) {
        double mean = 0;
        for (const float x : plain) {
            mean += x/plain.size();
        }

        const double spread = std::max(1e-9, distance(plain, std::vector<float>(plain.size(), mean)));

        noise = distance(plain, cut)/spread;
        res   = distance(plain, moved)/spread;

        LLAMA_LOG_INFO("%s: of the spread of the logits, %.3g with other batches, %.3g where keys and queries are moved\n", __func__, noise, res);
    }

    llama_free(scratch);

    return res;
}

//
// C API
//

int32_t llama_set_group_attn(llama_context * ctx, const llama_group_attn_level * levels, int32_t n_levels) {
    llama_group_attn value;

    value.n_levels = n_levels;

    std::copy(levels, levels + std::clamp(n_levels, 0, llama_group_attn::MAX_LEVELS), value.levels.begin());

    return llama_group_attn_calls::set(*ctx, value);
}

int32_t llama_get_group_attn(const llama_context * ctx, llama_group_attn_level * levels, int32_t n_max) {
    const auto & value = ctx->get_cparams().group_attn;

    std::copy(value.levels.begin(), value.levels.begin() + std::clamp(n_max, 0, value.n_levels), levels);

    return value.n_levels;
}

float llama_group_attn_self_test(const llama_context * ctx) {
    float noise = 0.0f;

    return llama_group_attn_calls::self_test(*ctx, noise);
}

const char * llama_group_attn_reason(int32_t status) {
    switch (status) {
        case LLAMA_GROUP_ATTN_OK:           return "it is set";
        case LLAMA_GROUP_ATTN_INVALID:      return "n and w must be at least 1, r a multiple of n, and each level a multiple of the one before";
        case LLAMA_GROUP_ATTN_MEMORY:       return "the memory of this model holds no keys that could be grouped (recurrent, or a special KV cache)";
        case LLAMA_GROUP_ATTN_NO_ROPE:      return "this model has no rotary positions (RoPE)";
        case LLAMA_GROUP_ATTN_ROPE_KIND:    return "the keys can't be moved: RoPE dimensions differ by layer, the cache holds an image, or another context's keys";
        case LLAMA_GROUP_ATTN_STREAMS:      return "the sequences have KV caches of their own: create the context with kv_unified (--kv-unified)";
        case LLAMA_GROUP_ATTN_SHARED_CELLS: return "sequences share cells of the KV cache: give each its own copy";
        case LLAMA_GROUP_ATTN_ARCH:         return "the keys of this architecture aren't plain rotations";
        case LLAMA_GROUP_ATTN_SELF_TEST:    return "this architecture is untested, and moving its keys changed what it says";
        case LLAMA_GROUP_ATTN_POOLING:      return "embeddings are pooled over whole texts (mean, cls or rank)";
        case LLAMA_GROUP_ATTN_TEMPERATURE:  return "the model has an attention temperature of its own";
        case LLAMA_GROUP_ATTN_INVALID_RECALL: return "r, n_sinks and n_fetched must be multiples of n_span, n_span a power of two up to 256, w no less than a sliding window";
        case LLAMA_GROUP_ATTN_FLASH_ATTN:   return "recall needs flash attention (--flash-attn on)";
        case LLAMA_GROUP_ATTN_SEQUENCES:    return "recall needs a context of one sequence (n_seq_max = 1)";
        case LLAMA_GROUP_ATTN_QUANTIZED:    return "recall with a quantised KV cache is right on a CPU only: take f16";
        default:                            return "unknown status";
    }
}
