// See llama-k-shift.h.

#include "llama-k-shift.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-k-copies.h"
#include "llama-kv-cache.h"
#include "llama-kv-keys.h"
#include "llama-model.h"
#include "llama-rope-layers.h"

#include <algorithm>
#include <cmath>

void llama_k_shift::set(ggml_tensor * dst, const std::vector<int32_t> & src) const {
    ggml_backend_tensor_set_async(ggml_backend_sched_get_tensor_backend(sched.get(), dst), dst, src.data(), 0, ggml_nbytes(dst));
}

//
// graph
//

namespace {

class llm_graph_input_k_shift_rows : public llm_graph_input_i {
public:
    llm_graph_input_k_shift_rows(const llama_kv_cache & kv, const llama_k_shift & ks) : kv(kv), ks(ks) {}

    void set_input(const llama_ubatch *) override {
        ks.set(shift, ks.shifts);

        if (!ks.cur.in_place) {
            ks.set(from, ks.cur.from);
            ks.set(rows, ks.cur.rows);
        }

        if (ks.cur.keep) {
            ks.set(slots, ks.cur.slots);
        }

        if (rot && rot->buffer) {
            kv.set_input_k_rot(rot);
        }
    }

    ggml_tensor * from  = nullptr; // I32 [n_rows]
    ggml_tensor * rows  = nullptr; // I32 [n_rows]
    ggml_tensor * slots = nullptr; // I32 [n_rows]
    ggml_tensor * shift = nullptr; // I32 [n_rows*n_pos_per_embd]

    // note: assumes rot^2 == I
    ggml_tensor * rot = nullptr;

private:
    const llama_kv_cache & kv;
    const llama_k_shift  & ks;
};

} // namespace

ggml_tensor * llama_k_shift_rope(
        ggml_context * ctx, const llama_model & model, const llama_cparams & cparams,
        ggml_tensor * cur, ggml_tensor * shift, ggml_tensor * hadamard, bool in_place, uint32_t il) {
    const auto & hparams = model.hparams;

    const auto rope = llama_rope_layer_get(model, cparams, il);

    // the keys got their magnitude when they were first rotated: cancel the one that ggml_rope applies under YaRN
    const float attn_factor = rope.ext_factor != 0.0f ? 1.0f/(1.0f + 0.1f*logf(1.0f/rope.freq_scale)) : 1.0f;

    const int64_t n_rot = hparams.n_rot(il);

    // the heads of MLA keep their positions behind the first n_embd_nope dimensions, all others in the first n_rot
    const int64_t n_embd_nope = hparams.n_lora_kv > 0 ? cur->ne[0] - n_rot : 0;

    if (hadamard) {
        cur = llama_mul_mat_hadamard(ctx, cur, hadamard);
    }

    ggml_tensor * pe = cur;

    if (n_embd_nope > 0) {
        pe = ggml_view_3d(ctx, cur, n_rot, cur->ne[1], cur->ne[2], cur->nb[1], cur->nb[2], ggml_row_size(cur->type, n_embd_nope));
    }

    if (hparams.n_pos_per_embd() > 1) {
        int sections[GGML_MROPE_SECTIONS];
        std::copy(hparams.rope_sections.begin(), hparams.rope_sections.begin() + GGML_MROPE_SECTIONS, sections);

        pe = (in_place ? ggml_rope_multi_inplace : ggml_rope_multi)(
                ctx, pe, shift, rope.factors, n_rot, sections, rope.type, cparams.n_ctx_orig_yarn, rope.freq_base, rope.freq_scale,
                rope.ext_factor, attn_factor, cparams.yarn_beta_fast, cparams.yarn_beta_slow);
    } else {
        pe = (in_place ? ggml_rope_ext_inplace : ggml_rope_ext)(
                ctx, pe, shift, rope.factors, n_rot, rope.type, cparams.n_ctx_orig_yarn, rope.freq_base, rope.freq_scale,
                rope.ext_factor, attn_factor, cparams.yarn_beta_fast, cparams.yarn_beta_slow);
    }

    if (n_embd_nope > 0 && !in_place) {
        ggml_tensor * nope = ggml_view_3d(ctx, cur, n_embd_nope, cur->ne[1], cur->ne[2], cur->nb[1], cur->nb[2], 0);

        pe = ggml_concat(ctx, nope, pe, 0);
    }

    if (hadamard) {
        pe = llama_mul_mat_hadamard(ctx, pe, hadamard);
    }

    return pe;
}

ggml_cgraph * llama_kv_keys::build_graph(llama_k_shift & ks, llama_context * lctx) const {
    auto * res = ks.res.get();
    auto * ctx = res->get_ctx();
    auto * gf  = res->get_gf();

    const auto & rows = ks.cur;

    const int64_t n_rows = rows.rows.size();

    auto inp = std::make_unique<llm_graph_input_k_shift_rows>(kv, ks);

    inp->from  = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_rows);
    inp->rows  = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_rows);
    inp->slots = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_rows);
    inp->shift = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n_rows*kv.hparams.n_pos_per_embd());

    inp->rot = kv.build_input_k_rot(ctx);

    const auto & cparams = lctx->get_cparams();

    for (size_t i = 0; i < kv.layers.size(); ++i) {
        const auto & layer = kv.layers[i];

        const uint32_t il = layer.il;

        if (!kv.hparams.has_rope(il)) {
            continue;
        }

        const int64_t n_head_kv     = kv.hparams.n_head_kv(il);
        const int64_t n_embd_head_k = kv.hparams.n_embd_head_k(il);
        const int64_t n_embd_k_gqa  = kv.hparams.n_embd_k_gqa(il);

        ggml_tensor * hadamard = ggml_is_quantized(layer.k->type) ? inp->rot : nullptr;

        ggml_tensor * k = ggml_reshape_2d(ctx, layer.k, n_embd_k_gqa, (int64_t) kv.get_size()*kv.n_stream);

        if (rows.in_place) {
            ggml_tensor * cur = ggml_view_3d(ctx, k, n_embd_head_k, n_head_kv, n_rows,
                    ggml_row_size(k->type, n_embd_head_k), k->nb[1], k->nb[1]*rows.rows.front());

            ggml_build_forward_expand(gf, llama_k_shift_rope(ctx, kv.model, cparams, cur, inp->shift, hadamard, true, il));
            continue;
        }

        // gather to f32 -> RoPE -> scatter
        ggml_tensor * cur = ggml_get_rows(ctx, rows.source ? rows.source->k[i] : k, inp->from);

        if (rows.keep) {
            ggml_build_forward_expand(gf, ggml_set_rows(ctx, rows.keep->k[i], cur, inp->slots));
        }

        cur = ggml_reshape_3d(ctx, cur, n_embd_head_k, n_head_kv, n_rows);
        cur = llama_k_shift_rope(ctx, kv.model, cparams, cur, inp->shift, hadamard, false, il);
        cur = ggml_reshape_2d(ctx, cur, n_embd_k_gqa, n_rows);

        ggml_build_forward_expand(gf, ggml_set_rows(ctx, k, cur, inp->rows));
    }

    res->add_input(std::move(inp));

    return gf;
}

//
// llama_k_shifts
//

std::vector<llama_pos> llama_k_shift_dimensions(std::vector<llama_pos> shifts, size_t n_pos) {
    const size_t n = shifts.size();

    for (size_t p = 1; p < n_pos; ++p) {
        shifts.resize((p + 1)*n);

        if (p < 3) {
            std::copy(shifts.begin(), shifts.begin() + n, shifts.begin() + p*n);
        }
    }

    return shifts;
}

bool llama_k_shifts::run(llama_context & lctx, const llama_kv_keys & keys, const llama_k_shift_rows & rows, bool again) {
    auto & ks = lctx.k_shifts.shifts[&keys.kv];

    if (!ks.sched) {
        // a dozen operations a layer, and the keys of each layer as leafs
        const size_t max_nodes = 20*(lctx.model.hparams.n_layer_all + 1);

        ks.res  .reset(new llm_graph_result(max_nodes));
        ks.sched.reset(ggml_backend_sched_new(
                    lctx.backend_ptrs.data(), lctx.backend_buft.data(), lctx.backend_ptrs.size(), 2*max_nodes, false, lctx.cparams.op_offload));
    }

    if (again) {
        // the inputs are still in use. else a graph of the context, which waits for the device, has run since
        ggml_backend_sched_synchronize(ks.sched.get());
    }

    ks.cur = rows;

    ks.shifts = llama_k_shift_dimensions(rows.shift, lctx.model.hparams.n_pos_per_embd());

    const auto first  = rows.in_place ? rows.rows.front() : -1;
    const auto source = rows.source ? rows.source->serial : 0;
    const auto keep   = rows.keep   ? rows.keep->serial   : 0;

    if (ks.n_rows != rows.rows.size() || ks.source != source || ks.keep != keep || ks.first != first) {
        ks.n_rows = 0;
        ks.res->reset();

        ggml_backend_sched_reset(ks.sched.get());
        ggml_backend_sched_set_eval_callback(ks.sched.get(), lctx.cparams.cb_eval, lctx.cparams.cb_eval_user_data);

        if (!ggml_backend_sched_alloc_graph(ks.sched.get(), keys.build_graph(ks, &lctx))) {
            LLAMA_LOG_ERROR("%s: failed to allocate compute graph for K-shift\n", __func__);
            return false;
        }

        ks.n_rows = rows.rows.size();
        ks.source = source;
        ks.keep   = keep;
        ks.first  = first;
    }

    ks.res->set_inputs(nullptr);

    // a shift that is stopped half-way would leave keys that nobody knows the rotation of
    auto * const callback      = lctx.abort_callback;
    auto * const callback_data = lctx.abort_callback_data;

    lctx.set_abort_callback(nullptr, nullptr);

    // the context computes it with its own threads
    std::swap(lctx.sched, ks.sched);

    const auto status = lctx.graph_compute(ks.res->get_gf(), true);

    std::swap(lctx.sched, ks.sched);

    lctx.set_abort_callback(callback, callback_data);

    if (status != GGML_STATUS_SUCCESS) {
        LLAMA_LOG_ERROR("%s: failed to compute K-shift\n", __func__);
        return false;
    }

    return true;
}

size_t llama_k_shifts::memory(ggml_backend_t backend) const {
    size_t size = 0;

    for (const auto & [_, ks] : shifts) {
        size += ggml_backend_sched_get_buffer_size(ks.sched.get(), backend);
    }

    return size;
}
