#pragma once

// What is known of the keys in a KV cache besides the place in the text that its cells hold: which position each is rotated
// for, which one it should be rotated for, and where a copy of it lies. Moves the keys that should be elsewhere.
//
// The rotation that is noted is that of the values in memory, whatever was asked of the cells since: a K-shift turns each key
// by what is missing, and one that stops half-way is simply continued.

#include "llama.h"
#include "llama-group-attn.h"
#include "llama-k-copies.h"
#include "llama-k-shift.h"

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

class llama_io_read_i;
class llama_io_write_i;
class llama_kv_cache;
class llama_kv_cache_context;

struct llama_memory_i;
struct llama_ubatch;

struct llama_kv_keys {
    explicit llama_kv_keys(llama_kv_cache & kv) : kv(kv) {}

    static llama_kv_keys * of(llama_kv_cache & kv);
    static llama_kv_keys * of(const llama_kv_cache_context & mctx);

    //
    // notes
    //

    // new keys lie in the cells cells[s] of each stream strm[s], the i-th of all rotated for position rot[i], or as recall wants them
    void wrote(const std::vector<llama_seq_id> & strm, const std::vector<std::vector<uint32_t>> & cells, const llama_pos * rot);

    // the keys of stream src were copied over those of stream dst
    void copied(uint32_t src, uint32_t dst);

    //
    // states: each cell's rotation stands behind its position, and the copies of its key behind keys and values
    //

    // marks a state that holds them, so that this library, the ones before it and the stock one refuse each other's states
    static constexpr uint32_t STATE_TAG = 0x53452000; // "SE", version 2

    void write(llama_io_write_i & io, uint32_t strm, uint32_t cell) const;

    void read(llama_io_read_i & io);

    // these cells were restored, with the rotations that were read last. false: they can't be used as they are
    bool restored(const std::vector<llama_seq_id> & strm, const std::vector<std::vector<uint32_t>> & cells);

    // the copies of the keys in these ranges of cells, and the borders that they are rotated for. with both, a context that was
    // restored moves its keys from the same values as the one that was saved: it goes on bit for bit
    void write_copies(
            llama_io_write_i & io, uint32_t strm, const std::vector<std::pair<uint32_t, uint32_t>> & ranges, llama_state_seq_flags flags) const;

    // call with the cells that were restored. seq_id: what they were restored as, -1 = as they were. throws std::runtime_error
    void read_copies(llama_io_read_i & io, uint32_t strm, const std::vector<uint32_t> & cells, llama_seq_id seq_id);

    //
    // moves
    //

    // do these cells belong to another context's cache? its keys are that one's
    bool borrowed() const;

    // can these keys be turned at all? M-RoPE: the keys of text can
    bool can_move(bool text) const;

    // does any layer of this cache have RoPE? if none has, its keys have no position and none is ever moved
    bool has_rope() const;

    // turn keys to the positions of their cells, after these were changed
    bool shift(llama_context * lctx);

    //
    // group attention
    //

    void set_group_attn(const llama_group_attn & value);

    const llama_group_attn & get_group_attn() const { return group_attn; }

    // does any cell belong to more than one sequence?
    bool has_shared_cells() const;

    // does any cell hold a part of an image?
    bool has_images() const;

    // turn keys to where the borders of this ubatch want them
    bool step(llama_context * lctx, const llama_ubatch & ubatch);

    //
    // recall, see llama-recall.cpp
    //

    // the cells of the positions p0 .. p1 - 1 of a sequence, as values that can be gathered. false: the text has holes
    bool get_cells(llama_seq_id seq_id, llama_pos p0, llama_pos p1, std::vector<float> & cells) const;

    // does each position before p1 lie in the cell of the same number?
    bool in_order(llama_seq_id seq_id, llama_pos p1) const;

    // does recall fetch the keys of a layer, of any layer? those of a sliding window, or without positions, are left alone
    bool fetches(int32_t il) const;
    bool fetches() const;

    // of those layers, the most heads that share keys
    int64_t n_gqa() const;

    // do keys of a quantised type lie elsewhere than in the memory of the CPU?
    bool is_quantized_on_device() const;

    // room for what a scheme with recall holds besides, none without
    void reserve_recall(llama_context * lctx, const llama_group_attn & value);

    // null without recall
    llama_recall_memory * get_recall() const { return recall.get(); }

    // where the means, keys, values or notes of recall lie for a layer, null without
    ggml_tensor * get_recalled(const std::shared_ptr<llama_k_copies> & copies, int32_t il) const;

    // of the key at a position, 0 = there is none
    uint64_t get_id(llama_seq_id seq_id, llama_pos pos) const;

    // shifts of texts as turn() reads them: in all dimensions of a position
    std::vector<llama_pos> in_all_dimensions(const std::vector<llama_pos> & shifts) const;

    // turn vectors f32 [n_embd_head_k, n_head, n] by shift, as a K-shift of this layer does
    ggml_tensor * turn(const llm_graph_context & graph, ggml_tensor * cur, ggml_tensor * shift, ggml_tensor * hadamard, int il) const;

    //
    // copies
    //

    // room for the copies that this scheme wants. returns true if graphs have to be built anew
    bool reserve_copies(llama_context * lctx, const llama_group_attn & value);

    // changes with the tensors of the exact copies, 0 = there are none
    uint64_t exact_serial() const { return exact ? exact->serial : 0; }

    // the slots of the exact copies of the keys that were written last
    void claim_exact(const llama_ubatch & ubatch, std::vector<int64_t> & slots);

    // where the exact copies of a layer lie, null without
    ggml_tensor * get_exact(int32_t il) const;

    void breakdown(std::map<ggml_backend_buffer_type_t, size_t> & sizes) const;

    // bytes of keys and values that lie in a file, see llama-kv-file.h
    uint64_t file_size() const;

    //
    // K-shift, see llama-k-shift.cpp
    //

    ggml_cgraph * build_graph(llama_k_shift & ks, llama_context * lctx) const;

    llama_kv_cache & kv;

private:
    struct key {
        uint64_t  id  = 0; // given once, 0 = none
        llama_pos rot = 0; // the position that it is rotated for

        // slots of its copies, if these still hold them. -1 = none
        int32_t exact = -1;
        int32_t kept  = -1;
    };

    struct move {
        uint32_t  row; // cell + stream*kv_size
        llama_pos rot; // where it goes
    };

    key & at(uint32_t strm, uint32_t cell);

    void note(const std::vector<llama_seq_id> & strm, const std::vector<std::vector<uint32_t>> & cells, const llama_pos * rot);

    // the position that the key at position j is rotated for while the borders are b. under recall all keys lie unrotated as soon as
    // something is left out: they never move again, so that they don't depend on what was read and rolled back since
    llama_pos rotation(llama_pos j, const llama_group_attn::borders & b) const { return recall && b[0] > 0 ? 0 : group_attn.rotation(j, b); }

    bool is_quantized() const;

    // n_keep: keys that have no copy are copied before they move, at most so many of a sequence
    bool run(llama_context * lctx, std::vector<move> & moves, uint64_t n_keep);

    // take the keys that get a slot to be kept in from those that just move
    void claim_kept(std::vector<move> & plain, std::vector<move> & keep);

    uint64_t n_kept(const llama_group_attn & value, int32_t level) const;

    std::unique_ptr<llama_k_copies> make_copies(ggml_type type, uint64_t n_keys) const;

    // are all keys of a sequence rotated as these borders want them?
    bool are_borders(llama_seq_id seq_id, const llama_group_attn::borders & borders) const;

    std::vector<key> keys; // by row

    uint64_t last_id = 0;

    std::vector<llama_pos> rots; // that were read from a state

    std::vector<uint32_t> written; // the rows that were written last

    // the keys as they were computed, in a finer type than a quantised cache has: those that steps still move
    std::unique_ptr<llama_k_copies> exact;

    // the keys as they were in the cache before they moved for the first time without an exact copy
    std::unique_ptr<llama_k_copies> kept;

    std::shared_ptr<llama_recall_memory> recall;

    llama_group_attn group_attn;

    // the borders that the keys of each sequence are rotated for, -1 in the first = unknown: compare all
    std::vector<llama_group_attn::borders> known;
};

std::shared_ptr<llama_kv_keys> llama_kv_keys_make(llama_kv_cache & kv);

// of the KV caches of this memory whose keys can be moved on their own. empty: none, or not on their own
std::vector<llama_kv_keys *> llama_kv_keys_of(llama_memory_i * mem);

// can llama_memory_seq_add() and llama_memory_seq_div() move the keys? logs why not
bool llama_kv_keys_can_move(llama_memory_i * mem);
