// See llama-k-exact.h.

#include "llama-k-exact.h"

#include "llama-batch.h"
#include "llama-graph.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cache.h"

#include "ggml-backend.h"

#include <algorithm>
#include <map>
#include <memory>

void llama_k_exact::forget(llama_seq_id seq_id) {
    const auto first = seq_id < 0 ? pos.begin() : pos.begin() + seq_id*n_slots;

    std::fill(first, seq_id < 0 ? pos.end() : first + n_slots, -1);
}

//
// llama_kv_cache
//

// a value in a byte or more loses nothing that can be measured when it is quantised again
static bool loses_by_shifts(ggml_type type) {
    return ggml_is_quantized(type) && (int64_t) ggml_type_size(type) < ggml_blck_size(type);
}

bool llama_kv_cache::k_exact_reserve(uint32_t n_slots) {
    if (!loses_by_shifts(type_k()) || (k_exact && k_exact->n_slots >= n_slots)) {
        return false;
    }

    auto res = std::make_unique<llama_k_exact>();

    res->n_slots   = n_slots;
    res->n_seq_max = n_seq_max;

    res->pos.resize(n_slots*n_seq_max, -1);
    res->rot.resize(n_slots*n_seq_max);

    // a copy lies where the keys of its layer lie
    std::map<ggml_backend_buffer_type_t, ggml_context_ptr> ctxs;

    for (const auto & layer : layers) {
        if (!hparams.has_rope(layer.il)) {
            res->k.push_back(nullptr);
            continue;
        }

        auto & ctx = ctxs[ggml_backend_buffer_get_type(layer.k->buffer)];

        if (!ctx) {
            ctx.reset(ggml_init({ layers.size()*ggml_tensor_overhead(), nullptr, /*.no_alloc =*/ true }));
        }

        res->k.push_back(ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F16, layer.k->ne[0], n_slots*n_seq_max));

        ggml_format_name(res->k.back(), "cache_k_exact_l%d", (int) layer.il);
    }

    for (auto & [buft, ctx] : ctxs) {
        ggml_backend_buffer_t buf;

        if (hparams.no_alloc) {
            buf = ggml_backend_buft_alloc_buffer(buft, 0);

            for (auto * t = ggml_get_first_tensor(ctx.get()); t != nullptr; t = ggml_get_next_tensor(ctx.get(), t)) {
                t->buffer = buf;
            }
        } else {
            buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft);
        }

        if (!buf) {
            LLAMA_LOG_ERROR("%s: failed to allocate the exact copies of %u keys\n", __func__, n_slots*n_seq_max);
            return false;
        }

        res->ctxs_bufs.emplace_back(std::move(ctx), buf);
    }

    k_exact = std::move(res);

    return true;
}

void llama_kv_cache::k_exact_breakdown(std::map<ggml_backend_buffer_type_t, size_t> & sizes) const {
    for (const auto & [ctx, buf] : k_exact->ctxs_bufs) {
        const auto buft = ggml_backend_buffer_get_type(buf.get());

        sizes[buft] += hparams.no_alloc ? ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), buft) : ggml_backend_buffer_get_size(buf.get());
    }
}

ggml_tensor * llama_kv_cache::cpy_k_exact(ggml_context * ctx, ggml_tensor * k_cur, ggml_tensor * k_idxs, int32_t il) const {
    if (!k_exact || !k_exact->k[map_layer_ids.at(il)]) {
        return nullptr;
    }

    const int64_t n_tokens = k_cur->ne[2];

    k_cur  = ggml_view_2d(ctx, k_cur, k_cur->ne[0]*k_cur->ne[1], n_tokens, k_cur->nb[2], 0);
    k_idxs = ggml_view_1d(ctx, k_idxs, n_tokens, k_idxs->nb[1]);

    return ggml_set_rows(ctx, k_exact->k[map_layer_ids.at(il)], k_cur, k_idxs);
}

void llama_kv_cache::set_input_k_exact(int64_t * data, const llama_ubatch & ubatch) const {
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        const llama_pos p = ubatch.pos[i];

        data[i] = k_exact->claim(ubatch.seq_id[i][0], p, group_attn.rotation(p));

        // a key that sequences share is found as the first one's
        for (int32_t s = 1; s < ubatch.n_seq_id[i]; ++s) {
            k_exact->pos[k_exact->slot(ubatch.seq_id[i][s], p)] = -1;
        }
    }
}

//
// llm_graph_context
//

void llm_graph_context::build_cpy_k_exact(const llama_kv_cache_context * mctx_cur, ggml_tensor * k_cur, ggml_tensor * k_idxs, int il) const {
    if (ggml_tensor * cpy = mctx_cur->cpy_k_exact(ctx0, k_cur, k_idxs, il)) {
        ggml_build_forward_expand(gf, cpy);
    }
}
