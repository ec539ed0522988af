// Group attention in the KV cache and in the context. See llama-group-attn.h for the positions.
//
// The cells keep the text's positions. Beside each stands the position that its key is rotated for; a step of a border
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

// no border is known: compare every key of the sequence with its wanted rotation
static constexpr llama_pos BORDER_UNKNOWN = -1;

void llama_kv_cache::group_attn_set(const llama_group_attn & value) {
    group_attn = value;

    group_attn_forget_borders(-1);
}

const llama_group_attn & llama_kv_cache::group_attn_get() const {
    return group_attn;
}

void llama_kv_cache::group_attn_forget(llama_seq_id seq_id) {
    group_attn_forget_borders(seq_id);

    if (k_exact) {
        k_exact->forget(seq_id);
    }
}

void llama_kv_cache::group_attn_forget_borders(llama_seq_id seq_id) {
    for (llama_seq_id s = 0; s < (llama_seq_id) group_attn_borders.size(); ++s) {
        if (seq_id < 0 || seq_id == s) {
            group_attn_borders[s][0] = BORDER_UNKNOWN;
        }
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

        llama_group_attn::borders borders {};

        // all tokens of the sequence in this micro-batch have the same borders (see llama_group_attn_cut)
        for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
            if (ubatch.seq_id[i][0] == seq_id) {
                borders = group_attn.borders_at(ubatch.pos[i]);
                break;
            }
        }

        auto & known = group_attn_borders[seq_id];

        if (known == borders) {
            continue;
        }

        // keys before the farthest border that moves stay as they are
        llama_pos first = 0;

        for (int32_t k = group_attn.n_levels; k-- > 0 && known[0] != BORDER_UNKNOWN;) {
            if (known[k] != borders[k]) {
                first = std::min(known[k], borders[k]);
                break;
            }
        }

        auto & cells = v_cells[seq_to_stream[seq_id]];

        const auto & by_pos = cells.seq_pos_get(seq_id);

        for (auto it = by_pos.lower_bound({ first, 0 }); it != by_pos.end(); ++it) {
            const auto & [pos, i] = *it;

            const llama_pos shift = group_attn.rotation(pos, borders) - cells.rot_get(i);

            cells.shift_set(i, shift);
            queued = queued || shift != 0;
        }

        known = borders;
    }

    return queued;
}

//
// llama_context
//

static bool is_valid(const llama_group_attn & value) {
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

int32_t llama_context::set_group_attn(const llama_group_attn & value) {
    if (!is_valid(value)) {
        LLAMA_LOG_ERROR("%s: n and w must be at least 1, r a multiple of n, and each level a multiple of the one before\n", __func__);
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
        // what a step moves, and the step before it: the keys of a micro-batch may take the place of no older ones
        if (value.enabled() && kv->k_exact_reserve(value.levels[0].w + 2*value.levels[0].r)) {
            sched_need_reserve = true;
        }

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

int32_t llama_set_group_attn(llama_context * ctx, const llama_group_attn_level * levels, int32_t n_levels) {
    llama_group_attn value;

    value.n_levels = n_levels;

    std::copy(levels, levels + std::clamp(n_levels, 0, llama_group_attn::MAX_LEVELS), value.levels.begin());

    return ctx->set_group_attn(value);
}

int32_t llama_get_group_attn(const llama_context * ctx, llama_group_attn_level * levels, int32_t n_max) {
    const auto & value = ctx->get_cparams().group_attn;

    std::copy(value.levels.begin(), value.levels.begin() + std::clamp(n_max, 0, value.n_levels), levels);

    return value.n_levels;
}
