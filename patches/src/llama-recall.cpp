// See llama-recall.h.

#include "llama-recall.h"

#include "llama-context.h"
#include "llama-graph.h"
#include "llama-group-attn-api.h"
#include "llama-impl.h"
#include "llama-k-copies.h"
#include "llama-k-shift.h"
#include "llama-kv-cache.h"
#include "llama-kv-keys.h"
#include "llama-model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>
#include <tuple>

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

std::vector<llama_pos> llama_kv_keys::in_all_dimensions(const std::vector<llama_pos> & shifts) const {
    return llama_k_shift_dimensions(shifts, kv.hparams.n_pos_per_embd());
}

uint64_t llama_kv_keys::get_id(llama_seq_id seq_id, llama_pos pos) const {
    std::vector<float> cell;

    if (pos < 0 || keys.empty() || !get_cells(seq_id, pos, pos + 1, cell)) {
        return 0;
    }

    return keys[(size_t) kv.seq_to_stream[seq_id]*kv.get_size() + (size_t) cell[0]].id;
}

bool llama_kv_keys::fetches(int32_t il) const {
    return !kv.hparams.is_swa(il) && kv.hparams.has_rope(il);
}

bool llama_kv_keys::fetches() const {
    return std::any_of(kv.layers.begin(), kv.layers.end(), [&](const auto & layer) { return fetches(layer.il); });
}

int64_t llama_kv_keys::n_gqa() const {
    int64_t res = 1;

    for (const auto & layer : kv.layers) {
        res = std::max<int64_t>(res, fetches(layer.il) ? kv.hparams.n_gqa(layer.il) : 1);
    }

    return res;
}

bool llama_kv_keys::is_quantized_on_device() const {
    return std::any_of(kv.layers.begin(), kv.layers.end(), [&](const auto & layer) {
        return ggml_is_quantized(layer.k->type) && !ggml_backend_buft_is_host(ggml_backend_buffer_get_type(layer.k->buffer));
    });
}

//
// memory
//

// sinks and fetched
static int64_t n_far(const llama_recall_params & p) {
    return p.n_sinks + p.n_fetched;
}

// all that is attended to: CUDA's kernels like them by 256
static int64_t n_all(const llama_recall_params & p) {
    return GGML_PAD(n_far(p) + p.w + p.r, 256);
}

// spans
static int64_t n_chosen(const llama_recall_params & p) {
    return p.n_fetched/p.n_span;
}

static auto as_tuple(const llama_recall_params & p) {
    return std::tie(p.w, p.r, p.n_sinks, p.n_fetched, p.n_span, p.n_stretch, p.n_each, p.n_first, p.n_keep);
}

void llama_recall_memory::breakdown(std::map<ggml_backend_buffer_type_t, size_t> & sizes) const {
    for (const auto * copies : { means.get(), k.get(), v.get(), notes.get() }) {
        if (copies) {
            copies->breakdown(sizes);
        }
    }
}

void llama_kv_keys::reserve_recall(llama_context * lctx, const llama_group_attn & value) {
    const auto & p = value.recall;

    if (recall && p.n_fetched > 0 && as_tuple(recall->params) == as_tuple(p)) {
        return;
    }

    if (recall) {
        // what is freed may be in use
        lctx->synchronize();
        recall.reset();
    }

    llama_k_copies::layers layers_k, layers_v;

    if (p.n_fetched == 0 || !fetches()) {
        return;
    }

    for (const auto & layer : kv.layers) {
        layers_k.push_back(fetches(layer.il) ? layer.k : nullptr);
        layers_v.push_back(fetches(layer.il) ? layer.v : nullptr);
    }

    const auto make = [&](const llama_k_copies::layers & layers, int64_t n, ggml_type type = GGML_TYPE_F16) {
        auto res = std::make_shared<llama_k_copies>(layers, type, n, 1, n, kv.hparams.no_alloc);

        // what is masked is read too
        for (auto & [ctx, buf] : res->ctxs_bufs) {
            ggml_backend_buffer_clear(buf.get(), 0);
        }

        return res;
    };

    auto fresh = std::make_shared<llama_recall_memory>(p);

    fresh->k = make(layers_k, n_all(p));
    fresh->v = make(layers_v, n_all(p));

    // a row holds the keys of a token
    fresh->notes = make(layers_k, 1 + 2*n_chosen(p)/kv.hparams.n_embd_head_k(), GGML_TYPE_F32);

    if (p.n_first > 0) {
        fresh->means = make(layers_k, kv.get_size()/p.n_span);
    }

    recall = std::move(fresh);
}

ggml_tensor * llama_kv_keys::get_recalled(const std::shared_ptr<llama_k_copies> & copies, int32_t il) const {
    const auto ikv = kv.map_layer_ids.find(il);

    return copies && ikv != kv.map_layer_ids.end() ? copies->k[ikv->second] : nullptr;
}

//
// graph
//

namespace {

// what the graph of a micro-batch depends on, besides the number of cells
struct recall_shape {
    bool active  = false; // is anything left out?
    bool keeps   = false; // is it what was chosen before?
    bool ordered = false; // do the cells lie in the order of the text?

    llama_pos border = 0;

    int64_t n_tokens = 0;
    int64_t n_parts  = 1; // whole steps of the border, or a part of one. each makes a choice of its own
    int64_t stretch  = 1; // of each stretch of a step one query looks, whatever the micro-batches are
    int64_t n_looks  = 0; // of a part
    int64_t n_known  = 0; // spans whose mean key is there
    int64_t n_new    = 0; // spans whose mean key is computed. the last one again and again, so that graphs are used again
    int64_t n_first  = 0; // spans of which all keys are compared. 0: all
    int64_t n_late   = 0; // besides: those that are far for later parts alone

    recall_shape() = default;

    recall_shape(const llama_kv_keys & keys, const llama_group_attn & scheme, const llama_ubatch & ubatch) {
        const auto * memory = keys.get_recall();

        border = ubatch.pos && memory ? scheme.borders_at(ubatch.pos[0])[0] : 0;
        active = border > 0;

        if (!active) {
            return;
        }

        const auto & p = memory->params;

        const llama_seq_id seq_id = ubatch.seq_id[0][0];
        const llama_pos    first  = ubatch.pos[0];
        const llama_pos    last   = ubatch.pos[ubatch.n_tokens - 1];

        n_tokens = ubatch.n_tokens;
        n_parts  = std::max<int64_t>(1, n_tokens/p.r);

        // nothing before the end has changed if the last key is the same: a rollback removes the end of a text
        const bool sure = memory->last != 0 && keys.get_id(seq_id, memory->end - 1) == memory->last;

        keeps = sure && n_tokens == 1 && first == memory->end && border == memory->border && first < memory->chosen + p.n_keep;

        if (keeps) {
            return;
        }

        ordered = keys.in_order(seq_id, last + 1);

        stretch = part_size() > p.n_each ? p.n_stretch : 1;

        const int64_t at = (first - p.w) % p.r;

        n_looks = (at + part_size() - 1)/stretch - at/stretch + 1;

        const int64_t n_spans = border/p.n_span;

        if (p.n_first > 0 && n_spans - p.n_sinks/p.n_span > p.n_first/p.n_span) {
            n_first = p.n_first/p.n_span;
            n_late  = (n_parts - 1)*p.r/p.n_span;
            n_known = std::min<int64_t>(n_spans, sure ? memory->spans.size() : memory->n_sure);

            while (n_known > 0 && keys.get_id(seq_id, n_known*p.n_span - 1) != memory->spans[n_known - 1]) {
                n_known--;
            }

            const int64_t n_step = p.r/p.n_span;

            n_new = (n_spans - n_known + n_step - 1)/n_step*n_step;
        }
    }

    // tokens of a part
    int64_t part_size() const { return n_tokens/n_parts; }

    llama_pos border_of(const llama_recall_params & p, int64_t part) const { return border + part*p.r; }

    // the means that are known change no graph
    auto graph() const { return std::tie(active, keeps, ordered, border, n_tokens, n_looks, n_new, n_first); }
};

class llm_graph_input_recall : public llm_graph_input_i {
public:
    llm_graph_input_recall(const llama_kv_keys & keys, const llama_group_attn & scheme, const llama_ubatch & ubatch) :
        keys(keys), scheme(scheme), shape(keys, scheme, ubatch) {}

    void build(ggml_context * ctx, int64_t n_kv) {
        const auto & p = scheme.recall;

        const auto input = [&](ggml_type type, int64_t ne0, int64_t ne1) {
            ggml_tensor * res = ggml_new_tensor_2d(ctx, type, ne0, ne1);
            ggml_set_input(res);
            return res;
        };

        // a shift of n vectors
        const int64_t n_dims = keys.in_all_dimensions({ 0 }).size();

        mask   = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, n_all(p), shape.part_size(), 1, shape.n_parts);
        unturn = input(GGML_TYPE_I32, shape.n_tokens*n_dims, 1);

        ggml_set_input(mask);

        if (shape.keeps) {
            own      = input(GGML_TYPE_I32, shape.n_tokens, 1);
            to_place = input(GGML_TYPE_I32, shape.n_tokens*n_dims, 1);
            slots    = input(GGML_TYPE_I64, shape.n_tokens, 1);
            return;
        }

        const int64_t n_spans = n_kv/p.n_span;
        const int64_t n_parts = shape.n_parts;
        const int64_t n_looks = shape.n_looks*n_parts;

        looks    = input(GGML_TYPE_I32, n_looks, 1);
        to_look  = input(GGML_TYPE_I32, n_looks*n_dims, 1);
        spans    = input(GGML_TYPE_F32, p.n_span, n_spans);
        sinks    = input(GGML_TYPE_F32, n_parts, p.n_sinks);
        to_place = input(GGML_TYPE_I32, n_all(p)*n_dims, 1);
        near     = input(GGML_TYPE_F32, n_parts, n_all(p) - n_far(p));

        if (n_parts > 1) {
            to_part = input(GGML_TYPE_I32, shape.n_tokens*n_dims, 1);
        }

        // the same for each look of each head that shares keys
        const auto for_looks = [&](ggml_tensor * t) {
            ggml_tensor * res = ggml_reshape_3d(ctx, t, t->ne[0], 1, t->ne[1]);

            res = ggml_repeat_4d(ctx, res, t->ne[0], n_looks/t->ne[1], t->ne[1], 1);
            res = ggml_reshape_2d(ctx, res, t->ne[0], n_looks);

            return ggml_repeat_4d(ctx, res, t->ne[0], n_looks*keys.n_gqa(), 1, 1);
        };

        if (shape.n_first == 0) {
            far      = input(GGML_TYPE_F32, n_kv,    n_parts);
            far_span = input(GGML_TYPE_F32, n_spans, n_parts);
        } else {
            far_mean      = input(GGML_TYPE_F32, n_spans, 1);
            far_mean_span = input(GGML_TYPE_F32, n_spans, 1);

            far_mean_looks = for_looks(far_mean);

            if (shape.n_late > 0) {
                far      = input(GGML_TYPE_F32, (shape.n_first + shape.n_late)*p.n_span, n_parts);
                far_span = input(GGML_TYPE_F32,  shape.n_first + shape.n_late,           n_parts);
                late     = input(GGML_TYPE_F32, 1, shape.n_late);
            }
        }

        far_looks = far ? for_looks(far) : nullptr;

        if (shape.n_new > 0) {
            fresh   = input(GGML_TYPE_I32, shape.n_new*p.n_span, 1);
            to_mean = input(GGML_TYPE_I64, shape.n_new, 1);
        }

        if (!shape.ordered) {
            by_place = input(GGML_TYPE_I32, n_kv, 1);
        }
    }

    static void set(ggml_tensor * t, const void * data) {
        if (t && t->buffer) {
            ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
        }
    }

    void set_input(const llama_ubatch * ubatch) override {
        shape = { keys, scheme, *ubatch };

        if (!shape.active) {
            if (keys.get_recall()) {
                keys.get_recall()->noted = false;
            }
            return;
        }

        auto & memory = *keys.get_recall();

        const auto & p = scheme.recall;

        const llama_seq_id seq_id = ubatch->seq_id[0][0];
        const llama_pos    border = shape.border;
        const llama_pos    first  = ubatch->pos[0];
        const llama_pos    end    = ubatch->pos[ubatch->n_tokens - 1] + 1;

        set_mask(*ubatch);

        std::vector<llama_pos> shifts;

        for (int64_t i = 0; i < shape.n_tokens; ++i) {
            shifts.push_back(-ubatch->rot()[i]);
        }

        set_shift(unturn, shifts);

        if (shape.keeps) {
            std::vector<float> cells;

            if (!keys.get_cells(seq_id, first, end, cells)) {
                cells.resize(end - first);
            }

            const std::vector<int32_t> rows(cells.begin(), cells.end());

            set(own, rows.data());

            std::vector<int64_t> places;

            shifts.clear();

            for (llama_pos i = first; i < end; ++i) {
                places.push_back(n_far(p) + i - border);
                shifts.push_back(i - border);
            }

            set(slots, places.data());
            set_shift(to_place, shifts);
        } else {
            set_choice(*ubatch, end);

            memory.noted = true;

            memory.n_sure = std::min<size_t>(memory.spans.size(), shape.n_known);
            memory.chosen = shape.n_tokens == 1 ? first : -p.n_keep; // the first token of an answer looks for itself

            if (shape.n_first > 0) {
                memory.spans.resize(shape.n_known);

                for (llama_pos j = (shape.n_known + 1)*p.n_span; j <= border; j += p.n_span) {
                    memory.spans.push_back(keys.get_id(seq_id, j - 1));
                }
            }
        }

        memory.last   = keys.get_id(seq_id, end - 1);
        memory.end    = end;
        memory.border = shape.border_of(p, shape.n_parts - 1);
    }

    bool can_reuse(const llm_graph_params & params) override {
        const recall_shape now(keys, params.cparams.group_attn, params.ubatch);

        // the number of cells is compared where the plain mask is
        return as_tuple(scheme.recall) == as_tuple(params.cparams.group_attn.recall) && shape.graph() == now.graph();
    }

    const llama_kv_keys & keys;

    const llama_group_attn scheme;

    recall_shape shape;

    ggml_tensor * mask     = nullptr; // F16 [n_all, n_tokens of a part, 1, n_parts]
    ggml_tensor * unturn   = nullptr; // I32 [n_tokens]         turns a new key to position 0
    ggml_tensor * to_place = nullptr; // I32 [n_all]            turns what is gathered to consecutive positions
    ggml_tensor * to_part  = nullptr; // I32 [n_tokens]         turns queries to the border of their part, null if there is one

    // where a choice is kept, to_place is of these
    ggml_tensor * own   = nullptr; // I32 [n_tokens]           the cells of the new keys
    ggml_tensor * slots = nullptr; // I64 [n_tokens]           where they go

    // where one is made
    ggml_tensor * looks     = nullptr; // I32 [n_looks*n_parts]  the queries that look
    ggml_tensor * to_look   = nullptr; // I32 [n_looks*n_parts]  turns them to where they look from
    ggml_tensor * far       = nullptr; // F32 [.., n_parts]      0 for keys that are far, else -inf. null if all that are compared are
    ggml_tensor * far_looks = nullptr; // F32 [.., rows]         the same for each look of each head that shares keys
    ggml_tensor * far_span  = nullptr; // F32 [.., n_parts]      0 for spans of these keys that are far, else less than any share
    ggml_tensor * spans     = nullptr; // F32 [n_span, n_spans]  the cells of each span
    ggml_tensor * by_place  = nullptr; // I32 [n_kv]             the same in one row, null if ordered
    ggml_tensor * fresh     = nullptr; // I32 [n_span*n_new]     the cells of spans whose mean key is computed
    ggml_tensor * to_mean   = nullptr; // I64 [n_new]            where it goes
    ggml_tensor * sinks     = nullptr; // F32 [n_parts, n_sinks] their cells
    ggml_tensor * near      = nullptr; // F32 [n_parts, n_all - n_far] their cells, the first one's where there are fewer

    // of the first stage, which all parts share. null without
    ggml_tensor * far_mean       = nullptr; // F32 [n_spans]       0 for spans that are far for all parts, else -inf
    ggml_tensor * far_mean_looks = nullptr; // F32 [n_spans, rows]
    ggml_tensor * far_mean_span  = nullptr; // F32 [n_spans]       0 for them, else less than any share
    ggml_tensor * late           = nullptr; // F32 [1, n_late]     spans that are far for later parts alone, null if there is one part

private:
    void set_shift(ggml_tensor * t, const std::vector<llama_pos> & shifts) const {
        set(t, keys.in_all_dimensions(shifts).data());
    }

    void set_mask(const llama_ubatch & ubatch) {
        const auto & p = scheme.recall;

        const ggml_fp16_t visible = ggml_fp32_to_fp16(0.0f);
        const ggml_fp16_t hidden  = ggml_fp32_to_fp16(-INFINITY);

        std::vector<ggml_fp16_t> masks(n_all(p)*shape.n_tokens, visible);

        for (int64_t i = 0; i < shape.n_tokens; ++i) {
            const llama_pos border = shape.border_of(p, i/shape.part_size());

            std::fill(masks.begin() + i*n_all(p) + n_far(p) + ubatch.pos[i] - border + 1, masks.begin() + (i + 1)*n_all(p), hidden);
        }

        set(mask, masks.data());
    }

    void set_choice(const llama_ubatch & ubatch, llama_pos end) {
        const auto & p = scheme.recall;

        const llama_seq_id seq_id = ubatch.seq_id[0][0];
        const llama_pos    border = shape.border;

        const int64_t n_tokens = shape.n_tokens;
        const int64_t n_parts  = shape.n_parts;
        const int64_t n_spans  = spans->ne[1];
        const int64_t n_kv     = n_spans*p.n_span;

        std::vector<float> cells; // of positions

        if (!keys.get_cells(seq_id, 0, end, cells)) {
            // this graph will not be computed: the step before it refuses a text with holes
            cells.resize(end);
        }

        std::vector<llama_pos> shifts;
        std::vector<int32_t>   ints;
        std::vector<float>     floats;

        // Numbers grow as tokens become rarer, since vocabularies list merges in the order of their frequency.
        const auto number = [&](int64_t i) { return ubatch.token ? ubatch.token[i] : 0; };

        // of a step
        const auto stretch = [&](int64_t i) { return (ubatch.pos[i] - p.w) % p.r/shape.stretch; };

        int64_t look = 0;

        for (int64_t i = 0; i < n_tokens; ++i) {
            if (number(i) >= number(look)) {
                look = i;
            }
            if ((i + 1) % shape.part_size() == 0 || stretch(i + 1) != stretch(i)) {
                ints.push_back(look);
                shifts.push_back(p.w - ubatch.rot()[look]);
                look = i + 1;
            }
        }

        set(looks, ints.data());
        set_shift(to_look, shifts);

        const auto border_of = [&](int64_t part) { return shape.border_of(p, part); };

        // 0 from `first` to the end of each part, else `other`
        const auto set_range = [&](ggml_tensor * t, int64_t first, auto && end_of, float other) {
            if (t) {
                floats.assign(ggml_nelements(t), other);

                for (int64_t part = 0; part < t->ne[1]; ++part) {
                    std::fill(floats.begin() + part*t->ne[0] + first, floats.begin() + part*t->ne[0] + end_of(part), 0.0f);
                }

                set(t, floats.data());
            }
        };

        const auto far_spans = [&](int64_t part) { return border_of(part)/p.n_span; };

        constexpr float least = -1.0f; // no share is as small

        if (shape.n_first > 0) {
            set_range(far_mean,      p.n_sinks/p.n_span, far_spans, -INFINITY);
            set_range(far_mean_span, p.n_sinks/p.n_span, far_spans, least);

            set_range(far,      0, [&](int64_t part) { return shape.n_first*p.n_span + part*p.r; }, -INFINITY);
            set_range(far_span, 0, [&](int64_t part) { return shape.n_first + part*p.r/p.n_span; }, least);

            floats.resize(shape.n_late);
            std::iota(floats.begin(), floats.end(), (float) (border/p.n_span));
            set(late, floats.data());
        } else {
            set_range(far_span, p.n_sinks/p.n_span, far_spans, least);

            floats.assign(n_kv*n_parts, -INFINITY);
            for (int64_t part = 0; part < n_parts; ++part) {
                for (llama_pos j = p.n_sinks; j < border_of(part); ++j) {
                    floats[part*n_kv + (int64_t) cells[j]] = 0.0f;
                }
            }
            set(far, floats.data());
        }

        floats.assign(cells.begin(), cells.begin() + border_of(n_parts - 1));
        floats.resize(n_kv, 0.0f);

        set(spans, floats.data());

        if (by_place) {
            ints.assign(floats.begin(), floats.end());
            set(by_place, ints.data());
        }

        if (fresh) {
            std::vector<int64_t> places;

            ints.clear();

            for (int64_t i = 0; i < shape.n_new; ++i) {
                places.push_back(std::min<int64_t>(shape.n_known + i, border/p.n_span - 1));
                ints.insert(ints.end(), cells.begin() + places.back()*p.n_span, cells.begin() + (places.back() + 1)*p.n_span);
            }

            set(fresh,   ints.data());
            set(to_mean, places.data());
        }

        shifts.resize(n_all(p));

        for (int64_t j = 0; j < n_all(p); ++j) {
            shifts[j] = j - n_far(p);
        }

        set_shift(to_place, shifts);

        if (to_part) {
            shifts.clear();
            for (int64_t i = 0; i < n_tokens; ++i) {
                shifts.push_back(-i/shape.part_size()*p.r);
            }
            set_shift(to_part, shifts);
        }

        floats.clear();
        for (int64_t j = 0; j < p.n_sinks; ++j) {
            floats.insert(floats.end(), n_parts, cells[j]);
        }
        set(sinks, floats.data());

        floats.clear();
        for (int64_t j = 0; j < near->ne[1]; ++j) {
            for (int64_t part = 0; part < n_parts; ++part) {
                const llama_pos pos = border_of(part) + j;
                floats.push_back(cells[pos < end - (n_parts - 1 - part)*shape.part_size() ? pos : border_of(part)]);
            }
        }
        set(near, floats.data());
    }
};

} // namespace

// the sum over the last dimension, in views and additions alone: ggml-cpu/recall-shares.cpp knows it by them
static ggml_tensor * sum_planes(ggml_context * ctx, ggml_tensor * x) {
    const auto planes = [&](int64_t first, int64_t n) {
        return ggml_view_3d(ctx, x, x->ne[0], x->ne[1], n, x->nb[1], x->nb[2], first*x->nb[2]);
    };

    ggml_tensor * rest = nullptr;

    while (x->ne[2] > 1) {
        const int64_t half = x->ne[2]/2;

        if (x->ne[2] % 2 == 1) {
            ggml_tensor * last = planes(2*half, 1);
            rest = rest ? ggml_add(ctx, rest, last) : last;
        }

        x = ggml_add(ctx, planes(0, half), planes(half, half));
    }

    return rest ? ggml_add(ctx, x, rest) : x;
}

// the same bytes as rows of another type
static ggml_tensor * seen_as(ggml_context * ctx, ggml_tensor * x, ggml_type type) {
    ggml_tensor * res = ggml_view_2d(ctx, x, x->ne[0], x->ne[1], x->nb[1], 0);

    res->ne[0] = x->ne[0]*ggml_type_size(x->type)/ggml_type_size(type);
    res->nb[0] = ggml_type_size(type);
    res->type  = type;

    return res;
}

static ggml_tensor * as_rows(ggml_context * ctx, ggml_tensor * kv) {
    return ggml_view_2d(ctx, kv, kv->ne[0]*kv->ne[1], kv->ne[2], kv->nb[2], 0);
}

// the keys or values of cells [n_embd, n_head, n_kv] that lie in these rows: F32 [n_embd*n_head, n_rows]
static ggml_tensor * gather(ggml_context * ctx, ggml_tensor * kv, ggml_tensor * rows) {
    return ggml_get_rows(ctx, as_rows(ctx, kv), rows);
}

// the same, of F16 as they are. ggml_get_rows makes F32 of F16, but moves I32: two values at a time
static ggml_tensor * gather_many(ggml_context * ctx, ggml_tensor * kv, ggml_tensor * rows) {
    if (kv->type != GGML_TYPE_F16 || kv->ne[0]*kv->ne[1] % 2 != 0) {
        return gather(ctx, kv, rows);
    }

    return seen_as(ctx, ggml_get_rows(ctx, seen_as(ctx, as_rows(ctx, kv), GGML_TYPE_I32), rows), GGML_TYPE_F16);
}

// the mean of n rows at a time
static ggml_tensor * mean_of(ggml_context * ctx, ggml_tensor * x, int n) {
    return n > 1 ? ggml_pool_2d(ctx, x, GGML_OP_POOL_AVG, 1, n, 1, n, 0, 0) : x;
}

// Maxima are taken in one dimension after the other: where a backend has a thread for each outcome, there are more.

// the largest of n rows at a time: [ne0, ne1/n]
static ggml_tensor * max_of_rows(ggml_context * ctx, ggml_tensor * x, int n) {
    return ggml_pool_2d(ctx, x, GGML_OP_POOL_MAX, 1, n, 1, n, 0, 0);
}

// the largest of n neighbours in a row: [ne0/n, ne1]
static ggml_tensor * max_of_neighbours(ggml_context * ctx, ggml_tensor * x, int n) {
    return n > 1 ? ggml_pool_2d(ctx, x, GGML_OP_POOL_MAX, n, 1, n, 1, 0, 0) : x;
}

// the spans that the queries of each part look at most, in the order of the text: I32 [n_chosen, n_parts]. notes: receives those of
// the last part, and their shares
static ggml_tensor * choose(
        const llm_graph_context & graph, const llm_graph_input_recall & inp, ggml_tensor * means,
        ggml_tensor * notes, ggml_tensor * look, ggml_tensor * k, float kq_scale, int il) {
    const auto & p     = inp.scheme.recall;
    const auto & shape = inp.shape;

    ggml_context * ctx = graph.ctx0;

    // the heads that share keys are rows of one product
    ggml_tensor * rows = ggml_reshape_3d(ctx, look, look->ne[0], look->ne[1]*look->ne[2]/k->ne[1], k->ne[1]);

    // how the looks share their attention among keys [n_embd_head, n_head_kv, n], summed over the heads: [n, n_looks]
    const auto share_of = [&](ggml_tensor * keys, ggml_tensor * mask) {
        // nothing comes between what a CPU computes as one
        ggml_build_forward_expand(graph.gf, rows);

        if (mask) {
            ggml_build_forward_expand(graph.gf, mask);
        }

        ggml_tensor * res = ggml_mul_mat(ctx, ggml_permute(ctx, keys, 0, 2, 1, 3), rows);
        ggml_prec_set_acc(res, GGML_PREC_F32);

        res = ggml_soft_max_ext(ctx, res, mask, kq_scale, 0.0f);

        return sum_planes(ctx, ggml_reshape_3d(ctx, res, res->ne[0], look->ne[1], look->ne[2]));
    };

    const int64_t n_spans = inp.spans->ne[1];
    const int64_t n_parts = shape.n_parts;

    const auto last_part = [&](ggml_tensor * t) { // of [n, n_parts]: [n]
        return ggml_view_1d(ctx, t, t->ne[0], (n_parts - 1)*t->nb[1]);
    };

    const auto as_column = [&](ggml_tensor * spans) { // I32 [n] as F32 [1, n]
        return ggml_reshape_2d(ctx, ggml_cast(ctx, spans, GGML_TYPE_F32), 1, spans->ne[0]);
    };

    const int64_t n_best = n_chosen(p);

    ggml_tensor * ids = nullptr; // F32 [1, n]: the spans that are compared, null if all are
    ggml_tensor * share;

    if (shape.n_first > 0) {
        ggml_tensor * keys = ggml_view_3d(ctx, means, k->ne[0], k->ne[1], n_spans, k->ne[0]*means->nb[0], means->nb[1], 0);

        share = share_of(keys, inp.far_mean_looks);
        share = max_of_rows(ctx, share, share->ne[1]);
        share = ggml_add(ctx, ggml_reshape_1d(ctx, share, n_spans), inp.far_mean_span);
        graph.cb(share, "recall_first", il);

        ids = as_column(ggml_top_k(ctx, share, shape.n_first));

        if (inp.late) {
            ids = ggml_concat(ctx, ids, inp.late, 1);
        }

        ggml_tensor * cells = ggml_get_rows(ctx, inp.spans, ggml_cast(ctx, ggml_reshape_1d(ctx, ids, ids->ne[1]), GGML_TYPE_I32));
        cells = ggml_cast(ctx, ggml_reshape_1d(ctx, cells, p.n_span*ids->ne[1]), GGML_TYPE_I32);

        share = share_of(ggml_reshape_3d(ctx, gather_many(ctx, k, cells), k->ne[0], k->ne[1], cells->ne[0]), inp.far_looks);
        share = max_of_rows(ctx, share, shape.n_looks);
    } else {
        share = max_of_rows(ctx, share_of(k, inp.far_looks), shape.n_looks);

        if (!shape.ordered) {
            share = ggml_get_rows(ctx, ggml_cont(ctx, ggml_transpose(ctx, share)), inp.by_place);
            share = ggml_cont(ctx, ggml_transpose(ctx, share));
        }
    }

    // the best of each span
    share = max_of_neighbours(ctx, share, p.n_span);

    if (inp.far_span) {
        share = ggml_add(ctx, share, inp.far_span);
    }

    graph.cb(share, "recall_share", il);

    ggml_tensor * top  = ggml_top_k(ctx, share, n_best); // [n_best, n_parts]
    ggml_tensor * best = as_column(ggml_reshape_1d(ctx, top, n_best*n_parts));

    if (ids) {
        best = ggml_get_rows(ctx, ids, ggml_reshape_1d(ctx, top, n_best*n_parts));
    }

    ggml_tensor * order = ggml_argsort(ctx, ggml_reshape_2d(ctx, best, n_best, n_parts), GGML_SORT_ORDER_ASC);

    best = ggml_get_rows(ctx, ggml_reshape_3d(ctx, best, 1, n_best, n_parts), order);
    best = ggml_reshape_2d(ctx, best, n_best, n_parts);

    ggml_tensor * worth = last_part(share);

    worth = ggml_get_rows(ctx, ggml_reshape_2d(ctx, worth, 1, worth->ne[0]), last_part(top));
    worth = ggml_get_rows(ctx, worth, last_part(order));

    ggml_build_forward_expand(graph.gf, ggml_cpy(ctx, ggml_concat(ctx, last_part(best), ggml_reshape_1d(ctx, worth, n_best), 0),
                ggml_view_1d(ctx, notes, 2*n_best, 0)));

    best = ggml_cast(ctx, best, GGML_TYPE_I32);
    graph.cb(best, "recall_spans", il);

    return best;
}

// where each layer's part of recall's memory lies
struct recalled {
    recalled(const llama_kv_keys & keys, int32_t il) :
        means(keys.get_recalled(keys.get_recall()->means, il)),
        notes(keys.get_recalled(keys.get_recall()->notes, il)),
        k    (keys.get_recalled(keys.get_recall()->k,     il)),
        v    (keys.get_recalled(keys.get_recall()->v,     il)) {}

    ggml_tensor * means;
    ggml_tensor * notes;
    ggml_tensor * k;
    ggml_tensor * v;
};

// keys [n_embd_k_gqa, n] that lie unrotated, turned to their places. those of all parts that have one place lie side by side
static ggml_tensor * placed(const llm_graph_context & graph, const llm_graph_input_recall & inp, ggml_tensor * rows, ggml_tensor * k, ggml_tensor * rot, int il) {
    const int64_t n_parts = inp.shape.n_parts;

    ggml_tensor * res = ggml_reshape_3d(graph.ctx0, rows, k->ne[0], k->ne[1]*n_parts, rows->ne[1]/n_parts);

    res = inp.keys.turn(graph, res, inp.to_place, rot, il);

    return ggml_reshape_2d(graph.ctx0, res, rows->ne[0], rows->ne[1]);
}

// what is attended to by a new choice: rows [n_embd_gqa, n_parts*n_all], of each place those of all parts
static std::pair<ggml_tensor *, ggml_tensor *> fetch(
        const llm_graph_context & graph, const llm_graph_input_recall & inp, ggml_tensor * rot, const recalled & all,
        ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, float kq_scale, int il) {
    const auto & p     = inp.scheme.recall;
    const auto & shape = inp.shape;

    ggml_context * ctx = graph.ctx0;

    const int64_t n_head = q->ne[1];

    if (inp.fresh) {
        ggml_build_forward_expand(graph.gf, ggml_set_rows(ctx, all.means, mean_of(ctx, gather(ctx, k, inp.fresh), p.n_span), inp.to_mean));
    }

    // some queries look for all, from one fixed distance: [n_embd_head, n_looks*n_parts, n_head]
    ggml_tensor * look = q;

    if (inp.looks->ne[0] < shape.n_tokens) {
        look = ggml_reshape_3d(ctx, gather(ctx, q, inp.looks), q->ne[0], n_head, inp.looks->ne[0]);
    }

    look = inp.keys.turn(graph, look, inp.to_look, rot, il);
    look = ggml_cont(ctx, ggml_permute(ctx, look, 0, 2, 1, 3));

    const int64_t n_parts = shape.n_parts;

    ggml_tensor * chosen = choose(graph, inp, all.means, all.notes, look, k, kq_scale, il);
    ggml_tensor * cells  = ggml_get_rows(ctx, inp.spans, ggml_reshape_1d(ctx, chosen, ggml_nelements(chosen)));

    cells = ggml_reshape_2d(ctx, cells, p.n_fetched, n_parts);
    cells = n_parts > 1 ? ggml_cont(ctx, ggml_transpose(ctx, cells)) : ggml_reshape_2d(ctx, cells, 1, p.n_fetched);
    cells = ggml_concat(ctx, inp.sinks, cells, 1);
    cells = ggml_concat(ctx, cells, inp.near, 1);
    cells = ggml_cast(ctx, ggml_reshape_1d(ctx, cells, n_all(p)*n_parts), GGML_TYPE_I32);

    return { placed(graph, inp, gather_many(ctx, k, cells), k, rot, il), gather_many(ctx, v, cells) };
}

// of the layers of this cache, null if this one is left alone
static llm_graph_input_recall * input_of(const llm_graph_context & graph, const llama_kv_cache_context * mctx, int il) {
    const auto & scheme = graph.cparams.group_attn;

    const auto & keys = *llama_kv_keys::of(*mctx);

    if (scheme.recall.n_fetched == 0 || !keys.fetches(il)) {
        return nullptr;
    }

    for (const auto & input : graph.res->inputs) {
        auto * other = dynamic_cast<llm_graph_input_recall *>(input.get());

        if (other && &other->keys == &keys) {
            return other;
        }
    }

    // there too while it is not active: it says when the plain graph can't be used any more
    auto fresh = std::make_unique<llm_graph_input_recall>(keys, scheme, graph.ubatch);

    if (fresh->shape.active) {
        fresh->build(graph.ctx0, mctx->get_n_kv());
    }

    return (llm_graph_input_recall *) graph.res->add_input(std::move(fresh));
}

ggml_tensor * llama_recall_key(
        const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * hadamard, ggml_tensor * k, int il) {
    const auto * inp = input_of(graph, mctx, il);

    return inp && inp->shape.active ? inp->keys.turn(graph, k, inp->unturn, hadamard, il) : k;
}

void llama_recall_attn(
        const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * hadamard,
        ggml_tensor *& q, ggml_tensor *& k, ggml_tensor *& v, ggml_tensor *& mask, float kq_scale, int il) {
    const auto * inp = input_of(graph, mctx, il);

    if (!inp || !inp->shape.active) {
        return;
    }

    ggml_context * ctx = graph.ctx0;

    const recalled all(inp->keys, il);

    ggml_tensor * rot = ggml_is_quantized(k->type) ? hadamard : nullptr;

    ggml_tensor * all_k = all.k;
    ggml_tensor * all_v = all.v;

    if (inp->shape.keeps) {
        ggml_tensor * own = placed(graph, *inp, gather(ctx, k, inp->own), k, rot, il);

        ggml_build_forward_expand(graph.gf, ggml_set_rows(ctx, all.k, own, inp->slots));
        ggml_build_forward_expand(graph.gf, ggml_set_rows(ctx, all.v, gather(ctx, v, inp->own), inp->slots));
    } else {
        std::tie(all_k, all_v) = fetch(graph, *inp, rot, all, q, k, v, kq_scale, il);
    }

    // the tokens behind a token that was decoded alone share its choice
    if (inp->shape.n_tokens == 1 && !inp->shape.keeps) {
        ggml_build_forward_expand(graph.gf, ggml_cpy(ctx, all_k, all.k));
        ggml_build_forward_expand(graph.gf, ggml_cpy(ctx, all_v, all.v));

        all_k = all.k;
        all_v = all.v;
    }

    const int64_t n_parts = inp->shape.n_parts;

    // a part is what a sequence is to the plain graph
    const auto as_heads = [&](ggml_tensor * all, ggml_tensor * kv) {
        const size_t head = ggml_row_size(all->type, kv->ne[0]);
        return ggml_view_4d(ctx, all, kv->ne[0], kv->ne[1], all->ne[1]/n_parts, n_parts, head, n_parts*all->nb[1], all->nb[1], 0);
    };

    k = as_heads(all_k, k);
    v = as_heads(all_v, v);

    if (inp->to_part) {
        q = inp->keys.turn(graph, q, inp->to_part, rot, il);
    }

    mask = inp->mask;
}

uint32_t llama_recall_max_nodes(const llama_cparams & cparams, const llama_hparams & hparams) {
    return cparams.group_attn.recall.n_fetched > 0 ? 128*hparams.n_layer_all : 0;
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
            p.w >= 1 && p.r >= 1 && p.n_sinks >= 1 && p.n_fetched >= 1 && p.n_span >= 1 && p.n_stretch >= 1 && p.n_each >= 1 && p.n_first >= 0 && p.n_keep >= 1 &&
            p.r % p.n_span == 0 && p.n_sinks % p.n_span == 0 && p.n_fetched % p.n_span == 0 && p.n_first % p.n_span == 0 &&
            (p.n_first == 0 || p.n_first >= p.n_fetched) && 256 % p.n_span == 0 &&
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

        for (auto * keys : llama_kv_keys_of(ctx.memory.get())) {
            if (status == LLAMA_GROUP_ATTN_OK && keys->is_quantized_on_device()) {
                status = LLAMA_GROUP_ATTN_QUANTIZED;
            }
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

int32_t llama_group_attn_calls::recall_fetched(llama_context & ctx, int32_t il, int32_t * spans, float * shares, int32_t n_max) {
    for (const auto * keys : llama_kv_keys_of(ctx.memory.get())) {
        const auto * memory = keys->get_recall();

        ggml_tensor * notes = memory && memory->noted ? keys->get_recalled(memory->notes, il) : nullptr;

        if (!notes) {
            continue;
        }

        ctx.synchronize();

        const int64_t n = n_chosen(memory->params);

        std::vector<float> values(2*n);

        ggml_backend_tensor_get(notes, values.data(), 0, values.size()*sizeof(float));

        for (int64_t i = 0; i < std::min<int64_t>(n, n_max); ++i) {
            spans [i] = values[i];
            shares[i] = values[n + i];
        }

        return n;
    }

    return 0;
}

int32_t llama_recall_fetched(llama_context * ctx, int32_t il, int32_t * spans, float * shares, int32_t n_max) {
    return llama_group_attn_calls::recall_fetched(*ctx, il, spans, shares, n_max);
}
