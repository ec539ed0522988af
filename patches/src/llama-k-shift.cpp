// See llama-k-shift.h.

#include "llama-k-shift.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include <algorithm>

//
// llama_k_shift
//

void llama_k_shift::set(ggml_tensor * dst, const std::vector<int32_t> & src) const {
    ggml_backend_tensor_set_async(ggml_backend_sched_get_tensor_backend(sched.get(), dst), dst, src.data(), 0, ggml_nbytes(dst));
}

//
// llama_kv_cache
//

llama_k_shift_rows llama_kv_cache::get_k_shift_rows(size_t n_max, bool exact) const {
    llama_k_shift_rows res;

    res.exact = exact;

    for (uint32_t s = 0; s < n_stream; ++s) {
        const auto & cells = v_cells[s];

        for (uint32_t i = cells.used_min(); i < cells.used_max_p1() && res.rows.size() < n_max; ++i) {
            if (cells.is_empty(i) || cells.get_shift(i) == 0) {
                continue;
            }

            const int32_t row  = s*get_size() + i;
            const int32_t slot = k_exact && cells.seq_count(i) == 1 ? k_exact->find(cells.seq_get(i), cells.pos_get(i)) : -1;

            if (exact != (slot >= 0)) {
                continue;
            }

            res.rows .push_back(row);
            res.from .push_back(exact ? slot : row);
            res.shift.push_back(cells.get_shift(i) + (exact ? cells.rot_get(i) - k_exact->rot[slot] : 0));
        }
    }

    const bool ropes = type_k() == GGML_TYPE_F32 || type_k() == GGML_TYPE_F16;

    res.in_place = ropes && !res.rows.empty() && res.rows.back() - res.rows.front() + 1 == (int32_t) res.rows.size();

    return res;
}

bool llama_kv_cache::k_shift(llama_context * lctx) {
    // bounds the f32 copy of the keys of one layer
    constexpr size_t n_bytes_max = 16*1024*1024;

    const size_t n_rows_max = std::max<size_t>(1, n_bytes_max/(sizeof(float)*hparams.n_embd_k_gqa_max()));

    bool again = false;

    for (const bool exact : { true, false }) {
        bool more = k_exact || !exact;

        while (more) {
            const auto cur = get_k_shift_rows(n_rows_max, exact);

            more = cur.rows.size() == n_rows_max;

            if (!cur.rows.empty()) {
                if (!lctx->k_shift(*this, cur, again)) {
                    return false;
                }

                again = true;
            }

            for (const int32_t row : cur.rows) {
                v_cells[row/get_size()].reset_shift(row%get_size());
            }
        }
    }

    return true;
}

//
// llama_context
//

bool llama_context::k_shift(const llama_kv_cache & kv, const llama_k_shift_rows & rows, bool again) {
    auto & ks = k_shifts[&kv];

    if (!ks.sched) {
        // a dozen operations a layer, and the keys of each layer as leafs
        const size_t max_nodes = 16*(model.hparams.n_layer_all + 1);

        ks.res  .reset(new llm_graph_result(max_nodes));
        ks.sched.reset(ggml_backend_sched_new(
                    backend_ptrs.data(), backend_buft.data(), backend_ptrs.size(), 2*max_nodes, false, cparams.op_offload));
    }

    if (again) {
        // the inputs are still in use. else a graph of the context, which waits for the device, has run since
        ggml_backend_sched_synchronize(ks.sched.get());
    }

    ks.cur = rows;

    const auto * exact = rows.exact ? kv.get_k_exact() : nullptr;
    const auto   first = rows.in_place ? rows.rows.front() : -1;

    if (ks.n_rows != rows.rows.size() || ks.exact != exact || ks.first != first) {
        ks.n_rows = 0;
        ks.res->reset();

        ggml_backend_sched_reset(ks.sched.get());
        ggml_backend_sched_set_eval_callback(ks.sched.get(), cparams.cb_eval, cparams.cb_eval_user_data);

        if (!ggml_backend_sched_alloc_graph(ks.sched.get(), kv.build_graph_shift(this, ks))) {
            LLAMA_LOG_ERROR("%s: failed to allocate compute graph for K-shift\n", __func__);
            return false;
        }

        ks.n_rows = rows.rows.size();
        ks.exact  = exact;
        ks.first  = first;
    }

    ks.res->set_inputs(nullptr);

    if (graph_compute(ks.res->get_gf(), true, ks.sched.get()) != GGML_STATUS_SUCCESS) {
        LLAMA_LOG_ERROR("%s: failed to compute K-shift\n", __func__);
        return false;
    }

    return true;
}

size_t llama_context::k_shift_memory(ggml_backend_t backend) const {
    size_t size = 0;

    for (const auto & [_, ks] : k_shifts) {
        size += ggml_backend_sched_get_buffer_size(ks.sched.get(), backend);
    }

    return size;
}
