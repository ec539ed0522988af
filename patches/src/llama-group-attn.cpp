// Group attention in the KV cache and in the context. See llama-group-attn.h for the positions.
//
// The cells keep the text's positions. Beside each stands the position that its key is rotated for; a boundary step
// queues the difference to the wanted one as an ordinary K-shift of the cells that move.

#include "llama-group-attn.h"

#include "llama-batch.h"
#include "llama-context.h"
#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-memory.h"
#include "llama-model.h"

#include <algorithm>
#include <cassert>
#include <limits>

//
// llama_kv_cache
//

// no boundary is known: compare every key of the sequence with its wanted rotation
static constexpr llama_pos BOUNDARY_UNKNOWN = -1;

void llama_kv_cache::group_attn_set(const llama_group_attn & value) {
    group_attn = value;

    group_attn_forget(-1);
}

const llama_group_attn & llama_kv_cache::group_attn_get() const {
    return group_attn;
}

void llama_kv_cache::group_attn_forget(llama_seq_id seq_id) {
    if (seq_id < 0) {
        std::fill(group_attn_boundary.begin(), group_attn_boundary.end(), BOUNDARY_UNKNOWN);
    } else {
        group_attn_boundary[seq_id] = BOUNDARY_UNKNOWN;
    }
}

bool llama_kv_cache::group_attn_has_shared_cells() const {
    for (const auto & cells : v_cells) {
        for (uint32_t i = cells.used_min(); i < cells.used_max_p1(); ++i) {
            if (!cells.is_empty(i) && cells.seq_count(i) > 1) {
                return true;
            }
        }
    }

    return false;
}

bool llama_kv_cache::group_attn_queue(const llama_ubatch & ubatch) {
    bool queued = false;

    for (uint32_t s = 0; s < ubatch.n_seqs_unq; ++s) {
        const llama_seq_id seq_id = ubatch.seq_id_unq[s];

        llama_pos boundary = 0;

        if (group_attn.enabled()) {
            // all tokens of the sequence in this micro-batch have the same boundary (see llama_group_attn_cut)
            for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
                if (ubatch.seq_id[i][0] == seq_id) {
                    boundary = group_attn.boundary(ubatch.pos[i]);
                    break;
                }
            }
        }

        llama_pos & known = group_attn_boundary[seq_id];

        if (known == boundary) {
            continue;
        }

        // keys before both boundaries stay as they are
        const llama_pos first = known == BOUNDARY_UNKNOWN ? 0 : std::min(known, boundary);

        auto & cells = v_cells[seq_to_stream[seq_id]];

        const auto & by_pos = cells.seq_pos_get(seq_id);

        for (auto it = by_pos.lower_bound({ first, 0 }); it != by_pos.end(); ++it) {
            const auto & [pos, i] = *it;

            const llama_pos shift = group_attn.rotation(pos, boundary) - cells.rot_get(i);

            cells.shift_set(i, shift);
            queued = queued || shift != 0;
        }

        known = boundary;
    }

    return queued;
}

//
// llama_context
//

int32_t llama_context::set_group_attn(const llama_group_attn & value) {
    if (value.n < 1 || value.w < 0 || (value.n > 1 && (value.w < 1 || value.r < 1 || value.r % value.n != 0))) {
        LLAMA_LOG_ERROR("%s: n = %d, w = %d, r = %d: n and w must be at least 1 and r a multiple of n\n",
                __func__, value.n, value.w, value.r);
        return LLAMA_GROUP_ATTN_INVALID;
    }

    const auto & hparams = model.hparams;

    const auto caches = memory ? memory->group_attn_caches() : std::vector<llama_kv_cache *>();

    if (value.enabled()) {
        if (hparams.rope_type == LLAMA_ROPE_TYPE_NONE || hparams.use_alibi) {
            return LLAMA_GROUP_ATTN_NO_ROPE;
        }

        if (caches.empty() || cparams.n_rs_seq > 0) {
            return LLAMA_GROUP_ATTN_MEMORY;
        }

        if (!memory->get_can_move()) {
            return LLAMA_GROUP_ATTN_ROPE_KIND;
        }

        for (const auto * kv : caches) {
            if (kv->get_n_stream() > 1) {
                return LLAMA_GROUP_ATTN_STREAMS;
            }

            if (kv->group_attn_has_shared_cells()) {
                return LLAMA_GROUP_ATTN_SHARED_CELLS;
            }
        }
    }

    cparams.group_attn = value;

    balloc->set_group_attn(value);

    for (auto * kv : caches) {
        kv->group_attn_set(value);
    }

    return LLAMA_GROUP_ATTN_OK;
}

bool llama_context::group_attn_check(const llama_batch_ext & batch) const {
    if (!cparams.group_attn.enabled()) {
        return true;
    }

    if (!cparams.causal_attn) {
        LLAMA_LOG_ERROR("%s: group attention needs causal attention\n", __func__);
        return false;
    }

    for (const auto & token : batch.tokens) {
        if (token.seq_ids.size() > 1) {
            LLAMA_LOG_ERROR("%s: under group attention a token can belong to one sequence only\n", __func__);
            return false;
        }
    }

    return true;
}

bool llama_context::group_attn_step(const llama_ubatch & ubatch) {
    for (auto * kv : memory->group_attn_caches()) {
        if (!kv->group_attn_queue(ubatch)) {
            continue;
        }

        // a K-shift that is stopped half-way would leave keys that nobody knows the rotation of
        auto * const callback      = abort_callback;
        auto * const callback_data = abort_callback_data;

        set_abort_callback(nullptr, nullptr);

        const bool ok = kv->k_shift(this);

        set_abort_callback(callback, callback_data);

        if (!ok) {
            return false;
        }

        kv->reset_shift();
    }

    return true;
}

//
// C API
//

int32_t llama_set_group_attn(llama_context * ctx, int32_t n, int32_t w, int32_t r) {
    llama_group_attn value;

    value.n = n;
    value.w = w;
    value.r = r;

    return ctx->set_group_attn(value);
}

void llama_get_group_attn(const llama_context * ctx, int32_t * n, int32_t * w, int32_t * r) {
    const auto & value = ctx->get_cparams().group_attn;

    *n = value.n;
    *w = value.w;
    *r = value.r;
}
