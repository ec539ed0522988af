// See llama-recall.h.

#include "llama-recall.h"

#include "llama-context.h"
#include "llama-graph.h"
#include "llama-group-attn-api.h"
#include "llama-impl.h"
#include "llama-k-shift.h"
#include "llama-kv-cache.h"
#include "llama-kv-keys.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <limits>

//
// cells
//

bool llama_kv_keys::get_cells(llama_seq_id seq_id, llama_pos p0, llama_pos p1, std::vector<float> & res) const {
    res.clear();

    const auto & cells = kv.v_cells[kv.seq_to_stream[seq_id]];

    // a text that was never rolled back lies in order
    llama_pos p = p0;

    while (p < p1 && p < (llama_pos) kv.get_size() && !cells.is_empty(p) && cells.pos_get(p) == p) {
        res.push_back(p++);
    }

    if (p == p1) {
        return true;
    }

    res.clear();

    const auto & by_pos = cells.seq_pos_get(seq_id);

    for (auto it = by_pos.lower_bound({ p0, 0 }); it != by_pos.end() && it->first < p1; ++it) {
        res.push_back(it->second);
    }

    return (llama_pos) res.size() == p1 - p0;
}

bool llama_kv_keys::in_order(llama_seq_id seq_id, llama_pos p1) const {
    const auto & cells = kv.v_cells[kv.seq_to_stream[seq_id]];

    for (llama_pos p = 0; p < p1; ++p) {
        if (p >= (llama_pos) kv.get_size() || cells.is_empty(p) || cells.pos_get(p) != p) {
            return false;
        }
    }

    return true;
}

ggml_tensor * llama_kv_keys::turn(const llm_graph_context & graph, ggml_tensor * cur, ggml_tensor * shift, ggml_tensor * hadamard, int il) const {
    return llama_k_shift_rope(graph.ctx0, kv.model, graph.cparams, cur, shift, hadamard, false, il);
}

//
// graph
//

namespace {

// queries that look with their mean lie in one stretch of the text, whatever the micro-batches are
int64_t count_means(const llama_recall_params & p, const llama_ubatch & ubatch) {
    return ubatch.pos[ubatch.n_tokens - 1]/p.n_mean - ubatch.pos[0]/p.n_mean + 1;
}

llama_pos border_of(const llama_group_attn & scheme, const llama_ubatch & ubatch) {
    return ubatch.pos ? scheme.borders_at(ubatch.pos[0])[0] : 0;
}

class llm_graph_input_recall : public llm_graph_input_i {
public:
    llm_graph_input_recall(const llama_kv_keys & keys, const llama_group_attn & scheme, const llama_ubatch & ubatch) : keys(keys), scheme(scheme) {
        active = border_of(scheme, ubatch) > 0;

        if (active) {
            n_means = count_means(scheme.recall, ubatch);
            ordered = keys.in_order(ubatch.seq_id[0][0], border_of(scheme, ubatch));
        }
    }

    // sinks and fetched
    int64_t n_far() const { return scheme.recall.n_sinks + scheme.recall.n_fetched; }

    // all that is attended to: CUDA's kernels like them by 256
    int64_t n_all() const { return GGML_PAD(n_far() + scheme.recall.w + scheme.recall.r, 256); }

    void build(ggml_context * ctx, int64_t n_tokens, int64_t n_kv) {
        const auto & p = scheme.recall;

        const auto input = [&](ggml_type type, int64_t ne0, int64_t ne1) {
            ggml_tensor * res = ggml_new_tensor_2d(ctx, type, ne0, ne1);
            ggml_set_input(res);
            return res;
        };

        to_look  = input(GGML_TYPE_I32, n_tokens, 1);
        means    = input(GGML_TYPE_F32, n_tokens, n_means);
        far      = input(GGML_TYPE_F32, n_kv, 1);
        far_span = input(GGML_TYPE_F32, n_kv/p.n_span, 1);
        spans    = input(GGML_TYPE_F32, p.n_span, n_kv/p.n_span);
        sinks    = input(GGML_TYPE_F32, p.n_sinks, 1);
        to_place = input(GGML_TYPE_I32, n_far(), 1);
        near     = input(GGML_TYPE_I32, n_all() - n_far(), 1);
        mask     = input(GGML_TYPE_F16, n_all(), n_tokens);

        far_means = ggml_repeat_4d(ctx, far, n_kv, n_means, 1, 1);

        if (!ordered) {
            by_place = input(GGML_TYPE_I32, n_kv, 1);
        }
    }

    static void set(ggml_tensor * t, const void * data) {
        if (t && t->buffer) {
            ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
        }
    }

    void set_input(const llama_ubatch * ubatch) override {
        if (!active) {
            return;
        }

        const auto & p = scheme.recall;

        const llama_seq_id seq_id = ubatch->seq_id[0][0];
        const llama_pos    border = border_of(scheme, *ubatch);

        const int64_t n_tokens = ubatch->n_tokens;
        const int64_t n_kv     = far->ne[0];

        std::vector<float> cells; // of positions

        if (!keys.get_cells(seq_id, 0, ubatch->pos[n_tokens - 1] + 1, cells)) {
            // this graph will not be computed: the step before it refuses a text with holes
            cells.resize(ubatch->pos[n_tokens - 1] + 1);
        }

        std::vector<int32_t> ints(n_tokens);
        std::vector<float>   floats(n_tokens*n_means, 0.0f);

        for (int64_t i = 0; i < n_tokens; ++i) {
            ints[i] = p.w - ubatch->rot()[i];
        }

        set(to_look, ints.data());

        for (int64_t i = 0, first = 0; i <= n_tokens; ++i) {
            if (i == n_tokens || ubatch->pos[i]/p.n_mean != ubatch->pos[first]/p.n_mean) {
                const int64_t row = ubatch->pos[first]/p.n_mean - ubatch->pos[0]/p.n_mean;

                std::fill(floats.begin() + row*n_tokens + first, floats.begin() + row*n_tokens + i, 1.0f/(i - first));
                first = i;
            }
        }

        set(means, floats.data());

        floats.assign(n_kv, -INFINITY);

        for (llama_pos j = p.n_sinks; j < border; ++j) {
            floats[cells[j]] = 0.0f;
        }

        set(far, floats.data());

        const int64_t n_spans = n_kv/p.n_span;

        floats.assign(n_spans, -1.0f); // no share is as small

        std::fill(floats.begin() + p.n_sinks/p.n_span, floats.begin() + border/p.n_span, 0.0f);

        set(far_span, floats.data());

        floats.assign(cells.begin(), cells.begin() + border);
        floats.resize(n_kv, 0.0f);

        set(spans, floats.data());

        if (by_place) {
            ints.assign(floats.begin(), floats.end());
            set(by_place, ints.data());
        }

        set(sinks, cells.data());

        ints.resize(n_far());

        for (int64_t j = 0; j < n_far(); ++j) {
            ints[j] = j - n_far();
        }

        set(to_place, ints.data());

        ints.assign(cells.begin() + border, cells.end());

        const int64_t n_near = ints.size();

        ints.resize(near->ne[0], ints[0]);

        set(near, ints.data());

        const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f);
        const ggml_fp16_t hidden  = ggml_fp32_to_fp16(-INFINITY);

        std::vector<ggml_fp16_t> masks(n_all()*n_tokens, visible);

        for (int64_t i = 0; i < n_tokens; ++i) {
            const int64_t n_seen = std::min<int64_t>(n_near, ubatch->pos[i] - border + 1);

            std::fill(masks.begin() + i*n_all() + n_far() + n_seen, masks.begin() + (i + 1)*n_all(), hidden);
        }

        set(mask, masks.data());
    }

    bool can_reuse(const llm_graph_params & params) override {
        const llm_graph_input_recall now(keys, params.cparams.group_attn, params.ubatch);

        const auto & a = scheme.recall;
        const auto & b = now.scheme.recall;

        // the number of cells is compared where the plain mask is
        const bool res = active == now.active && n_means == now.n_means && ordered == now.ordered &&
            a.w == b.w && a.r == b.r && a.n_sinks == b.n_sinks && a.n_fetched == b.n_fetched && a.n_span == b.n_span && a.n_mean == b.n_mean;

        return res && (!active || mask->ne[1] == params.ubatch.n_tokens);
    }

    const llama_kv_keys & keys;

    const llama_group_attn scheme;

    bool    active  = false; // is anything left out?
    bool    ordered = true;  // do the far cells lie in the order of the text?
    int64_t n_means = 0;

    ggml_tensor * to_look  = nullptr; // I32 [n_tokens]           turns a query to where it looks from
    ggml_tensor * means    = nullptr; // F32 [n_tokens, n_means]
    ggml_tensor * far      = nullptr; // F32 [n_kv]               0 where a far key lies, else -inf
    ggml_tensor * far_span = nullptr; // F32 [n_spans]            0 for far spans, else less than any share
    ggml_tensor * spans    = nullptr; // F32 [n_span, n_spans]    the cells of each span
    ggml_tensor * by_place = nullptr; // I32 [n_kv]               the same in one row, null if ordered
    ggml_tensor * sinks    = nullptr; // F32 [n_sinks]            their cells
    ggml_tensor * to_place = nullptr; // I32 [n_far]              turns what is gathered to consecutive positions
    ggml_tensor * near     = nullptr; // I32 [n_all - n_far]      their cells, the first one's where there are fewer
    ggml_tensor * mask     = nullptr; // F16 [n_all, n_tokens]

    ggml_tensor * far_means = nullptr; // F32 [n_kv, n_means]
};

} // namespace

// the sum over the last dimension
static ggml_tensor * sum_planes(ggml_context * ctx, ggml_tensor * x) {
    while (x->ne[2] > 1) {
        const int64_t half = x->ne[2]/2;

        ggml_tensor * a = ggml_view_3d(ctx, x, x->ne[0], x->ne[1], half, x->nb[1], x->nb[2], 0);
        ggml_tensor * b = ggml_view_3d(ctx, x, x->ne[0], x->ne[1], half, x->nb[1], x->nb[2], half*x->nb[2]);

        ggml_tensor * sum = ggml_add(ctx, a, b);

        if (x->ne[2] % 2 == 1) {
            ggml_tensor * rest = ggml_view_3d(ctx, x, x->ne[0], x->ne[1], 1, x->nb[1], x->nb[2], (x->ne[2] - 1)*x->nb[2]);

            if (half > 1) {
                // the first plane of the sum takes it
                ggml_tensor * first  = ggml_view_3d(ctx, sum, x->ne[0], x->ne[1], 1,        sum->nb[1], sum->nb[2], 0);
                ggml_tensor * others = ggml_view_3d(ctx, sum, x->ne[0], x->ne[1], half - 1, sum->nb[1], sum->nb[2], sum->nb[2]);

                sum = ggml_concat(ctx, ggml_add(ctx, first, rest), others, 2);
            } else {
                sum = ggml_add(ctx, sum, rest);
            }
        }

        x = sum;
    }

    return x;
}

void llama_recall_attn(
        const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * hadamard,
        ggml_tensor * q, ggml_tensor *& k, ggml_tensor *& v, ggml_tensor *& mask, float kq_scale, int il) {
    const auto & scheme = graph.cparams.group_attn;
    const auto & p      = scheme.recall;

    if (p.n_fetched == 0 || graph.hparams.is_swa(il) || !graph.hparams.has_rope(il)) {
        return;
    }

    ggml_context * ctx = graph.ctx0;

    const auto & keys = *llama_kv_keys::of(*mctx);

    const int64_t n_kv = k->ne[2];

    llm_graph_input_recall * inp = nullptr;

    for (const auto & input : graph.res->inputs) {
        auto * other = dynamic_cast<llm_graph_input_recall *>(input.get());

        inp = other && &other->keys == &keys ? other : inp;
    }

    if (!inp) {
        // there too while it is not active: it says when the plain graph can't be used any more
        auto fresh = std::make_unique<llm_graph_input_recall>(keys, scheme, graph.ubatch);

        if (fresh->active) {
            fresh->build(ctx, q->ne[2], n_kv);
        }

        inp = (llm_graph_input_recall *) graph.res->add_input(std::move(fresh));
    }

    if (!inp->active) {
        return;
    }

    const int64_t n_head  = q->ne[1];
    const int64_t n_means = inp->n_means;

    // the queries look from one fixed distance, the mean of a few at a time: [n_embd_head, n_means, n_head]
    ggml_tensor * look = keys.turn(graph, q, inp->to_look, ggml_is_quantized(k->type) ? hadamard : nullptr, il);

    look = ggml_reshape_2d(ctx, look, look->ne[0]*n_head, look->ne[2]);
    look = ggml_cont(ctx, ggml_transpose(ctx, look));
    look = ggml_mul_mat(ctx, look, inp->means);
    look = ggml_reshape_3d(ctx, look, q->ne[0], n_head, n_means);
    look = ggml_permute(ctx, look, 0, 2, 1, 3);

    // how they share their attention among the far keys, summed over the heads: [n_kv, n_means]
    ggml_tensor * share = ggml_mul_mat(ctx, ggml_permute(ctx, k, 0, 2, 1, 3), look);
    ggml_prec_set_acc(share, GGML_PREC_F32);

    share = ggml_soft_max_ext(ctx, share, inp->far_means, kq_scale, 0.0f);
    share = sum_planes(ctx, share);
    graph.cb(share, "recall_share", il);

    // the best of each span: [n_spans]
    if (inp->ordered) {
        share = ggml_pool_2d(ctx, share, GGML_OP_POOL_MAX, p.n_span, n_means, p.n_span, n_means, 0, 0);
    } else {
        share = ggml_get_rows(ctx, ggml_cont(ctx, ggml_transpose(ctx, share)), inp->by_place);
        share = ggml_pool_2d(ctx, share, GGML_OP_POOL_MAX, n_means, p.n_span, n_means, p.n_span, 0, 0);
    }

    share = ggml_reshape_1d(ctx, share, n_kv/p.n_span);
    share = ggml_add(ctx, share, inp->far_span);

    // the best spans, in the order of the text
    ggml_tensor * best  = ggml_top_k(ctx, share, p.n_fetched/p.n_span);
    ggml_tensor * order = ggml_reshape_2d(ctx, ggml_cast(ctx, best, GGML_TYPE_F32), 1, p.n_fetched/p.n_span);

    order = ggml_get_rows(ctx, order, ggml_argsort(ctx, ggml_reshape_1d(ctx, order, order->ne[1]), GGML_SORT_ORDER_ASC));
    order = ggml_cast(ctx, ggml_reshape_1d(ctx, order, order->ne[1]), GGML_TYPE_I32);
    graph.cb(order, "recall_spans", il);

    ggml_tensor * cells = ggml_get_rows(ctx, inp->spans, order);

    cells = ggml_concat(ctx, inp->sinks, ggml_reshape_1d(ctx, cells, p.n_fetched), 0);
    cells = ggml_cast(ctx, cells, GGML_TYPE_I32);

    const auto gather = [&](ggml_tensor * kv, ggml_tensor * rows) {
        ggml_tensor * flat = ggml_view_2d(ctx, kv, kv->ne[0]*kv->ne[1], n_kv, kv->nb[2], 0);

        return ggml_reshape_3d(ctx, ggml_get_rows(ctx, flat, rows), kv->ne[0], kv->ne[1], rows->ne[0]);
    };

    ggml_tensor * k_far = keys.turn(graph, gather(k, cells), inp->to_place, ggml_is_quantized(k->type) ? hadamard : nullptr, il);

    k = ggml_cast(ctx, ggml_concat(ctx, k_far, gather(k, inp->near), 2), GGML_TYPE_F16);
    v = ggml_cast(ctx, ggml_concat(ctx, gather(v, cells), gather(v, inp->near), 2), GGML_TYPE_F16);

    mask = inp->mask;
}

uint32_t llama_recall_max_nodes(const llama_cparams & cparams, const llama_hparams & hparams) {
    return cparams.group_attn.recall.n_fetched > 0 ? 96*hparams.n_layer_all : 0;
}

//
// C API
//

int32_t llama_group_attn_calls::set_recall(llama_context & ctx, const llama_recall_params & p) {
    const auto & hparams = ctx.model.hparams;

    llama_group_attn value;

    if (p.n_fetched != 0) {
        value.levels[0] = { std::numeric_limits<int32_t>::max(), p.w, p.r };
        value.recall    = p;
    }

    const bool valid = p.n_fetched == 0 || (
            p.w >= 1 && p.r >= 1 && p.n_sinks >= 1 && p.n_fetched >= 1 && p.n_span >= 1 && p.n_mean >= 1 &&
            p.r % p.n_span == 0 && p.n_sinks % p.n_span == 0 && p.n_fetched % p.n_span == 0 && 256 % p.n_span == 0 &&
            (hparams.swa_type == LLAMA_SWA_TYPE_NONE || (int64_t) hparams.n_swa <= p.w));

    int32_t status = valid ? LLAMA_GROUP_ATTN_OK : LLAMA_GROUP_ATTN_INVALID_RECALL;

    if (valid && p.n_fetched != 0) {
        status = refusal(ctx);

        if (status == LLAMA_GROUP_ATTN_OK && hparams.is_mla()) {
            status = LLAMA_GROUP_ATTN_MEMORY;
        }

        if (status == LLAMA_GROUP_ATTN_OK && !ctx.cparams.flash_attn) {
            status = LLAMA_GROUP_ATTN_FLASH_ATTN;
        }

        if (status == LLAMA_GROUP_ATTN_OK && ctx.cparams.n_seq_max > 1) {
            status = LLAMA_GROUP_ATTN_SEQUENCES;
        }
    }

    if (status == LLAMA_GROUP_ATTN_OK) {
        apply(ctx, value);
    } else {
        LLAMA_LOG_ERROR("%s: recall is refused for %s: %s\n", __func__, llm_arch_name(ctx.model.arch), llama_group_attn_reason(status));
    }

    return status;
}

int32_t llama_set_recall(llama_context * ctx, const llama_recall_params * params) {
    return llama_group_attn_calls::set_recall(*ctx, params ? *params : llama_recall_params {});
}

llama_recall_params llama_get_recall(const llama_context * ctx) {
    return ctx->get_cparams().group_attn.recall;
}
