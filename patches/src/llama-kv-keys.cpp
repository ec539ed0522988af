// See llama-kv-keys.h.

#include "llama-kv-keys.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-io.h"
#include "llama-kv-cache.h"
#include "llama-kv-cache-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-hybrid-idx.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-model.h"

#include <algorithm>
#include <limits>
#include <new>
#include <stdexcept>

// no border is known: compare every key of the sequence with its wanted rotation
static constexpr llama_pos BORDER_UNKNOWN = -1;

// the slot, if it still holds the copy of this key
static int32_t find_copy(const llama_k_copies * copies, int32_t slot, uint64_t id) {
    return copies && slot >= 0 && copies->slots[slot].id == id ? slot : -1;
}

std::shared_ptr<llama_kv_keys> llama_kv_keys_make(llama_kv_cache & kv) {
    return std::make_shared<llama_kv_keys>(kv);
}

llama_kv_keys * llama_kv_keys::of(llama_kv_cache & kv) {
    return kv.keys.get();
}

llama_kv_keys * llama_kv_keys::of(const llama_kv_cache_context & mctx) {
    return mctx.kv->keys.get();
}

//
// notes
//

llama_kv_keys::key & llama_kv_keys::at(uint32_t strm, uint32_t cell) {
    if (keys.empty()) {
        keys.resize((size_t) kv.get_size()*kv.n_stream);
    }

    return keys[(size_t) strm*kv.get_size() + cell];
}

void llama_kv_keys::wrote(const std::vector<llama_seq_id> & strm, const std::vector<std::vector<uint32_t>> & cells, const llama_pos * rot) {
    note(strm, cells, rot);

    // a draft on the target's cells writes keys into cells that it has no positions of
    if (!recall) {
        return;
    }

    for (const uint32_t row : written) {
        const llama_pos pos = kv.v_cells[row/kv.get_size()].pos_get(row % kv.get_size());

        if (group_attn.borders_at(pos)[0] > 0) {
            keys[row].rot = 0; // see llama_recall_key()
        }
    }
}

void llama_kv_keys::note(const std::vector<llama_seq_id> & strm, const std::vector<std::vector<uint32_t>> & cells, const llama_pos * rot) {
    written.clear();

    for (size_t s = 0; s < strm.size(); ++s) {
        for (const uint32_t cell : cells[s]) {
            key & k = at(strm[s], cell);

            k     = {};
            k.id  = ++last_id;
            k.rot = *rot++;

            written.push_back(strm[s]*kv.get_size() + cell);
        }
    }
}

void llama_kv_keys::copied(uint32_t src, uint32_t dst) {
    for (uint32_t i = 0; i < kv.get_size(); ++i) {
        at(dst, i) = at(src, i);
    }
}

//
// states
//

void llama_kv_keys::write(llama_io_write_i & io, uint32_t strm, uint32_t cell) const {
    const llama_pos rot = keys[(size_t) strm*kv.get_size() + cell].rot;

    io.write(&rot, sizeof(rot));
}

void llama_kv_keys::read(llama_io_read_i & io) {
    rots.emplace_back();

    io.read(&rots.back(), sizeof(rots.back()));
}

bool llama_kv_keys::restored(const std::vector<llama_seq_id> & strm, const std::vector<std::vector<uint32_t>> & cells) {
    // a state that couldn't be read to its end has left some in front
    note(strm, cells, rots.data() + rots.size() - cells[0].size());

    rots.clear();

    known.resize(LLAMA_MAX_SEQ);

    for (const uint32_t cell : cells[0]) {
        if (kv.v_cells[strm[0]].seq_count(cell) == 1) {
            known[kv.v_cells[strm[0]].seq_get(cell)] = { BORDER_UNKNOWN };
        } else {
            known.assign(LLAMA_MAX_SEQ, { BORDER_UNKNOWN });
        }
    }

    if (group_attn.enabled() && (has_shared_cells() || has_images())) {
        LLAMA_LOG_ERROR("%s: under group attention sequences can't share cells, nor hold images\n", __func__);
        return false;
    }

    return true;
}

// a copy of the i-th cell of a state
struct copy_note {
    uint32_t  i;
    llama_pos rot;
};

// call with stretches of slots that lie side by side: first, count
template <typename F>
static void for_stretches(const std::vector<int32_t> & slots, F && f) {
    for (size_t first = 0, last = 0; first < slots.size(); first = last) {
        for (last = first + 1; last < slots.size() && slots[last] == slots[last - 1] + 1; ++last) {}

        f(slots[first], last - first);
    }
}

void llama_kv_keys::write_copies(
        llama_io_write_i & io, uint32_t strm, const std::vector<std::pair<uint32_t, uint32_t>> & ranges, llama_state_seq_flags flags) const {
    const auto & cells = kv.v_cells[strm];

    // tensors of different types can't be restored on the device
    const bool with_copies = !(flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE);

    std::map<llama_seq_id, llama_group_attn::borders> borders;

    for (const auto * copies : { exact.get(), kept.get() }) {
        std::vector<copy_note> notes;
        std::vector<int32_t>   slots;

        uint32_t i = 0;

        for (const auto & [first, last] : ranges) {
            for (uint32_t cell = first; cell < last; ++cell, ++i) {
                if (cells.seq_count(cell) != 1) {
                    continue;
                }

                const auto seq = cells.seq_get(cell);

                if (!known.empty() && known[seq][0] != BORDER_UNKNOWN) {
                    borders[seq] = known[seq];
                }

                const key & k = keys[(size_t) strm*kv.get_size() + cell];

                const int32_t slot = find_copy(copies, copies == exact.get() ? k.exact : k.kept, k.id);

                if (with_copies && slot >= 0) {
                    notes.push_back({ i, copies->slots[slot].rot });
                    slots.push_back(slot);
                }
            }
        }

        const uint64_t n_keys = copies ? copies->n_keys : 0;
        const uint32_t n      = notes.size();

        io.write(&n_keys, sizeof(n_keys));
        io.write(&n,      sizeof(n));

        if (n == 0) {
            continue;
        }

        io.write(notes.data(), n*sizeof(copy_note));

        for (ggml_tensor * k : copies->k) {

            const uint64_t row = k ? k->nb[1] : 0;

            io.write(&row, sizeof(row));

            if (k) {
                for_stretches(slots, [&](size_t slot, size_t count) { io.write_tensor(k, slot*row, count*row); });
            }
        }
    }

    const uint32_t n_borders = borders.size();

    io.write(&n_borders, sizeof(n_borders));

    for (const auto & [seq, value] : borders) {
        io.write(&seq, sizeof(seq));
        io.write(value.data(), sizeof(value));
    }
}

void llama_kv_keys::read_copies(llama_io_read_i & io, uint32_t strm, const std::vector<uint32_t> & restored, llama_seq_id seq_id) {
    const auto & cells = kv.v_cells[strm];

    for (auto * place : { &exact, &kept }) {
        const bool is_exact = place == &exact;

        uint64_t n_keys;
        uint32_t n;

        io.read(&n_keys, sizeof(n_keys));
        io.read(&n,      sizeof(n));

        if (n > restored.size()) {
            throw std::runtime_error("a state has more copies of keys than keys");
        }

        std::vector<copy_note> notes(n);

        n_keys = std::min<uint64_t>(n_keys, kv.get_size());

        // exact copies are written by the graphs of micro-batches, so they can't come out of nothing: set group attention before
        if (n_keys > 0 && (is_exact ? *place && !(*place)->holds(n_keys) : group_attn.enabled() && !(*place && (*place)->holds(n_keys)))) {
            *place = make_copies(is_exact ? GGML_TYPE_F16 : GGML_TYPE_COUNT, n_keys);
        }

        if (n == 0) {
            continue;
        }

        io.read(notes.data(), n*sizeof(copy_note));

        auto * copies = place->get();

        std::vector<int32_t> slots;

        for (uint32_t j = 0; j < n; ++j) {
            const auto & note = notes[j];

            if (note.i >= restored.size() || (j > 0 && note.i <= notes[j - 1].i) || cells.seq_count(restored[note.i]) != 1) {
                throw std::runtime_error("a state has copies of no key");
            }

            if (copies) {
                const uint32_t cell = restored[note.i];

                key & k = at(strm, cell);

                const int32_t slot = copies->slot_of(cells.seq_get(cell), cells.pos_get(cell), cell);

                (is_exact ? k.exact : k.kept) = slot;

                copies->slots[slot] = { k.id, note.rot };
                slots.push_back(slot);
            }
        }

        std::vector<uint8_t> ignored;

        for (size_t il = 0; il < kv.layers.size(); ++il) {
            ggml_tensor * k = copies ? copies->k[il] : nullptr;

            uint64_t row;

            io.read(&row, sizeof(row));

            if (copies && row != (k ? k->nb[1] : 0)) {
                throw std::runtime_error("the copies of keys in a state have another size");
            }

            if (k) {
                for_stretches(slots, [&](size_t slot, size_t count) { io.read_tensor(k, slot*row, count*row); });
            } else {
                ignored.resize(row);

                for (uint32_t j = 0; j < n; ++j) {
                    io.read(ignored.data(), row);
                }
            }
        }
    }

    uint32_t n_borders;

    io.read(&n_borders, sizeof(n_borders));

    for (uint32_t j = 0; j < n_borders; ++j) {
        llama_seq_id seq;

        llama_group_attn::borders borders;

        io.read(&seq, sizeof(seq));
        io.read(borders.data(), sizeof(borders));

        seq = seq_id >= 0 ? seq_id : seq;

        if (seq >= 0 && seq < LLAMA_MAX_SEQ && are_borders(seq, borders)) {
            known[seq] = borders;
        }
    }
}

bool llama_kv_keys::are_borders(llama_seq_id seq_id, const llama_group_attn::borders & borders) const {
    if (!group_attn.enabled() || *std::min_element(borders.begin(), borders.end()) < 0) {
        return false;
    }

    const auto strm = kv.seq_to_stream[seq_id];

    for (const auto & [pos, cell] : kv.v_cells[strm].seq_pos_get(seq_id)) {
        if (keys[(size_t) strm*kv.get_size() + cell].rot != rotation(pos, borders)) {
            return false;
        }
    }

    return true;
}

//
// moves
//

bool llama_kv_keys::borrowed() const {
    // TODO: refactor [TAG_KV_CACHE_SHARE_CELLS]
    return kv.other != nullptr;
}

bool llama_kv_keys::can_move(bool text) const {
    return !borrowed() && (kv.get_can_shift() || (text && kv.model.arch != LLM_ARCH_STEP35));
}

bool llama_kv_keys::has_rope() const {
    return std::any_of(kv.layers.begin(), kv.layers.end(), [&](const auto & layer) { return kv.hparams.has_rope(layer.il); });
}

bool llama_kv_keys::is_quantized() const {
    // a cache of global layers may have none
    return !kv.layers.empty() && ggml_is_quantized(kv.type_k());
}

bool llama_kv_keys::shift(llama_context * lctx) {
    known.clear();

    if (recall) {
        recall->forget();
    }

    if (group_attn.enabled()) {
        // the next step of each sequence compares all of its keys
        known.resize(LLAMA_MAX_SEQ, { BORDER_UNKNOWN });
        return true;
    }

    std::vector<move> moves;

    for (uint32_t s = 0; s < kv.n_stream; ++s) {
        const auto & cells = kv.v_cells[s];

        for (uint32_t i = cells.used_min(); i < cells.used_max_p1(); ++i) {
            if (!cells.is_empty(i) && cells.pos_get(i) != at(s, i).rot) {
                moves.push_back({ s*kv.get_size() + i, cells.pos_get(i) });
            }
        }
    }

    return run(lctx, moves, 0);
}

bool llama_kv_keys::run(llama_context * lctx, std::vector<move> & moves, uint64_t n_keep) {
    if (moves.empty()) {
        return true;
    }

    if (!has_rope()) {
        for (const auto & m : moves) {
            keys[m.row].rot = m.rot;
        }
        return true;
    }

    std::sort(moves.begin(), moves.end(), [](const move & a, const move & b) { return a.row < b.row; });

    // in this order: copies are read before others take their slots
    enum { EXACT, KEPT, KEEP, PLAIN, N_WAYS };

    std::vector<move> ways[N_WAYS];

    for (const auto & m : moves) {
        const key & k = keys[m.row];

        ways[find_copy(exact.get(), k.exact, k.id) >= 0 ? EXACT : find_copy(kept.get(), k.kept, k.id) >= 0 ? KEPT : PLAIN].push_back(m);
    }

    if (n_keep > 0 && !ways[PLAIN].empty()) {
        // growing frees the copies there are: their keys go on from what they have become
        if (!kept || !kept->holds(n_keep)) {
            lctx->synchronize();

            ways[PLAIN].insert(ways[PLAIN].end(), ways[KEPT].begin(), ways[KEPT].end());
            ways[KEPT].clear();

            kept = make_copies(GGML_TYPE_COUNT, n_keep);
        }

        if (kept) {
            claim_kept(ways[PLAIN], ways[KEEP]);
        }
    }

    const bool ropes = kv.type_k() == GGML_TYPE_F32 || kv.type_k() == GGML_TYPE_F16;

    // bounds the f32 copy of the keys of one layer
    constexpr size_t n_bytes_max = 16*1024*1024;

    const size_t n_rows_max = std::max<size_t>(1, n_bytes_max/(sizeof(float)*kv.hparams.n_embd_k_gqa_max()));

    bool again = false;

    for (int way = 0; way < N_WAYS; ++way) {
        const llama_k_copies * source = way == EXACT ? exact.get() : way == KEPT ? kept.get() : nullptr;

        for (size_t first = 0; first < ways[way].size(); first += n_rows_max) {
            const size_t last = std::min(first + n_rows_max, ways[way].size());

            llama_k_shift_rows rows;

            rows.source = source;
            rows.keep   = way == KEEP ? kept.get() : nullptr;

            for (size_t i = first; i < last; ++i) {
                const move & m = ways[way][i];
                const key  & k = keys[m.row];

                const int32_t from = way == EXACT ? k.exact : way == KEPT ? k.kept : (int32_t) m.row;

                rows.from .push_back(from);
                rows.rows .push_back(m.row);
                rows.slots.push_back(k.kept);
                rows.shift.push_back(m.rot - (source ? source->slots[from].rot : k.rot));
            }

            rows.in_place = way == PLAIN && ropes && rows.rows.back() - rows.rows.front() + 1 == (int32_t) rows.rows.size();

            if (!llama_k_shifts::run(*lctx, *this, rows, again)) {
                return false;
            }

            again = true;

            for (size_t i = first; i < last; ++i) {
                key & k = keys[ways[way][i].row];

                if (way == KEEP) {
                    kept->slots[k.kept] = { k.id, k.rot };
                }

                k.rot = ways[way][i].rot;
            }
        }
    }

    return true;
}

void llama_kv_keys::claim_kept(std::vector<move> & plain, std::vector<move> & keep) {
    // where two want one slot, the later one gets it: the other is about to leave the last border behind
    std::map<int32_t, move> claims;

    for (const auto & m : plain) {
        const auto & cells = kv.v_cells[m.row/kv.get_size()];
        const auto   cell  = m.row % kv.get_size();

        const int32_t slot = kept->slot_of(cells.seq_get(cell), cells.pos_get(cell), cell);

        const auto [it, fresh] = claims.emplace(slot, m);

        if (!fresh && cells.pos_get(it->second.row % kv.get_size()) < cells.pos_get(cell)) {
            it->second = m;
        }
    }

    std::vector<move> rest;

    for (const auto & m : plain) {
        const auto & cells = kv.v_cells[m.row/kv.get_size()];
        const auto   cell  = m.row % kv.get_size();

        const int32_t slot = kept->slot_of(cells.seq_get(cell), cells.pos_get(cell), cell);

        if (claims.at(slot).row == m.row) {
            keys[m.row].kept = slot;
            keep.push_back(m);
        } else {
            rest.push_back(m);
        }
    }

    plain = std::move(rest);
}

//
// group attention
//

void llama_kv_keys::set_group_attn(const llama_group_attn & value) {
    group_attn = value;

    known.assign(LLAMA_MAX_SEQ, { BORDER_UNKNOWN });
}

bool llama_kv_keys::has_shared_cells() const {
    for (const auto & cells : kv.v_cells) {
        for (uint32_t i = cells.used_min(); i < cells.used_max_p1(); ++i) {
            if (!cells.is_empty(i) && cells.seq_count(i) > 1) {
                return true;
            }
        }
    }

    return false;
}

bool llama_kv_keys::has_images() const {
    if (kv.hparams.n_pos_per_embd() == 1) {
        return false;
    }

    for (const auto & cells : kv.v_cells) {
        for (uint32_t i = cells.used_min(); i < cells.used_max_p1(); ++i) {
            if (!cells.is_empty(i) && (cells.ext_get(i).x != cells.pos_get(i) || cells.ext_get(i).y != cells.pos_get(i))) {
                return true;
            }
        }
    }

    return false;
}

bool llama_kv_keys::step(llama_context * lctx, const llama_ubatch & ubatch) {
    if (known.empty()) {
        known.resize(LLAMA_MAX_SEQ);
    }

    for (uint32_t s = 0; s < ubatch.n_seqs_unq; ++s) {
        const llama_seq_id seq_id = ubatch.seq_id_unq[s];

        llama_group_attn::borders borders {};

        // all tokens of the sequence in this micro-batch have the same borders, or recall and stand behind the first one's (see
        // llama_group_attn_cut and rotations())
        for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
            if (ubatch.seq_id[i][0] == seq_id) {
                borders = group_attn.borders_at(ubatch.pos[i]);
                break;
            }
        }

        std::vector<float> cells;

        if (recall && borders[0] > 0 && !get_cells(seq_id, 0, kv.seq_pos_max(seq_id) + 1, cells)) {
            LLAMA_LOG_ERROR("%s: recall can't read a text with holes: the first positions were removed, or some in the middle\n", __func__);
            return false;
        }

        const auto before = known[seq_id];

        if (before == borders) {
            continue;
        }

        // keys before the farthest border that moves stay as they are
        llama_pos first = 0;
        int32_t   level = group_attn.n_levels - 1; // the farthest that moves

        bool back = false;

        for (int32_t k = group_attn.n_levels; k-- > 0 && before[0] != BORDER_UNKNOWN;) {
            if (before[k] != borders[k]) {
                first = std::min(before[k], borders[k]);
                level = k;
                back  = before[k] > borders[k];
                break;
            }
        }

        const auto strm = kv.seq_to_stream[seq_id];

        std::vector<move> moves;

        const auto & by_pos = kv.v_cells[strm].seq_pos_get(seq_id);

        for (auto it = by_pos.lower_bound({ first, 0 }); it != by_pos.end(); ++it) {
            const auto & [pos, cell] = *it;

            const llama_pos rot = rotation(pos, borders);

            if (at(strm, cell).rot != rot) {
                moves.push_back({ strm*kv.get_size() + cell, rot });
            }
        }

        known[seq_id][0] = BORDER_UNKNOWN;

        // a key that is quantised loses by each move. others lose next to nothing, but may be moved to and fro without end
        const bool keep = group_attn.enabled() && before[0] != BORDER_UNKNOWN && (back || is_quantized());

        if (!run(lctx, moves, keep ? n_kept(group_attn, level) : 0)) {
            return false;
        }

        known[seq_id] = borders;
    }

    return true;
}

//
// copies
//

// what a step of a level moves, and the step before it: the keys of a micro-batch may take the place of no older ones
uint64_t llama_kv_keys::n_kept(const llama_group_attn & value, int32_t level) const {
    return std::min<uint64_t>(value.levels[level].w + 2ull*value.levels[level].r, kv.get_size());
}

std::unique_ptr<llama_k_copies> llama_kv_keys::make_copies(ggml_type type, uint64_t n_keys) const {
    llama_k_copies::layers layers;

    for (const auto & layer : kv.layers) {
        layers.push_back(kv.hparams.has_rope(layer.il) ? layer.k : nullptr);
    }

    try {
        return std::make_unique<llama_k_copies>(layers, type, n_keys, kv.n_seq_max, kv.get_size(), kv.hparams.no_alloc);
    } catch (const std::bad_alloc &) {
        LLAMA_LOG_WARN("%s: no memory for copies of %llu keys: they lose a little each time that they move\n", __func__, (unsigned long long) n_keys);
        return nullptr;
    }
}

bool llama_kv_keys::reserve_copies(llama_context * lctx, const llama_group_attn & value) {
    if (!value.enabled() || !has_rope() || (value.recall.n_fetched > 0 && fetches())) {
        return false;
    }

    const uint64_t n_exact = n_kept(value, 0);

    if (!is_quantized()) {
        // what a plan counts: they are made when a border first moves back
        if (kv.hparams.no_alloc) {
            kept = make_copies(GGML_TYPE_COUNT, n_exact);
        }
        return false;
    }

    const uint64_t n_far   = n_kept(value, value.n_levels - 1);

    const bool grow = !exact || !exact->holds(n_exact);

    if (grow || (value.n_levels > 1 && (!kept || !kept->holds(n_far)))) {
        // what is freed may be in use
        lctx->synchronize();

        // keys that lie before the ring of exact copies move too
        if (value.n_levels > 1) {
            kept = make_copies(GGML_TYPE_COUNT, n_far);
        }
    }

    if (grow) {
        exact = make_copies(GGML_TYPE_F16, n_exact);
    }

    return grow;
}

void llama_kv_keys::claim_exact(const llama_ubatch & ubatch, std::vector<int64_t> & slots) {
    slots.resize(ubatch.n_tokens);

    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        key & k = keys[written[i]];

        k.exact = exact->slot_of(ubatch.seq_id[i][0], ubatch.pos[i], written[i]);

        exact->slots[k.exact] = { k.id, k.rot };

        slots[i] = k.exact;
    }
}

ggml_tensor * llama_kv_keys::get_exact(int32_t il) const {
    return exact ? exact->k[kv.map_layer_ids.at(il)] : nullptr;
}

void llama_kv_keys::breakdown(std::map<ggml_backend_buffer_type_t, size_t> & sizes) const {
    for (const auto * copies : { exact.get(), kept.get() }) {
        if (copies) {
            copies->breakdown(sizes);
        }
    }

    if (recall) {
        recall->breakdown(sizes);
    }
}

//
// memories
//

std::vector<llama_kv_keys *> llama_kv_keys_of(llama_memory_i * mem) {
    if (dynamic_cast<llama_memory_hybrid_idx *>(mem)) {
        return {}; // the indexer's keys mirror the attention's: neither may move without the other
    }

    if (auto * hybrid = dynamic_cast<llama_memory_hybrid *>(mem)) {
        return llama_kv_keys_of(hybrid->get_mem_attn());
    }

    if (auto * hybrid = dynamic_cast<llama_memory_hybrid_iswa *>(mem)) {
        return llama_kv_keys_of(hybrid->get_mem_attn());
    }

    if (auto * iswa = dynamic_cast<llama_kv_cache_iswa *>(mem)) {
        auto res = llama_kv_keys_of(iswa->get_base());

        for (auto * keys : llama_kv_keys_of(iswa->get_swa())) {
            res.push_back(keys);
        }

        return res;
    }

    if (auto * kv = dynamic_cast<llama_kv_cache *>(mem)) {
        return { llama_kv_keys::of(*kv) };
    }

    return {};
}

bool llama_kv_keys_can_move(llama_memory_i * mem) {
    const auto all = llama_kv_keys_of(mem);

    const bool res = mem && (all.empty() ? mem->get_can_shift() :
            std::all_of(all.begin(), all.end(), [](const auto * keys) { return keys->can_move(false); }));

    if (!res) {
        LLAMA_LOG_ERROR("%s: the memory of this model does not support shifting\n", __func__);
    }

    return res;
}
