#pragma once

// Copies of keys that move between rotations, so that a key is always moved from the same values: a key that was moved from
// its last form, again and again, would be rounded anew each time.
//
// A copy lies in a slot of a ring of its sequence, or in the slot of its cell where the rings would be larger than the cache.
// A slot says whose copy it holds by the key's id, which is never given twice: a copy of a key that was replaced is never found.
// It knows no rotation that a key should have, and writes no keys.

#include "llama.h"

#include "ggml-cpp.h"

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

struct ggml_tensor;

struct llama_k_copies {
    struct slot {
        uint64_t  id  = 0; // of the key, 0 = none
        llama_pos rot = 0; // the position that the copy is rotated for
    };

    // the layers of a cache as this needs them: null where keys don't move
    using layers = std::vector<ggml_tensor *>;

    // room for n_keys of each of n_seq_max sequences, at most that of n_cells. throws std::bad_alloc
    // type: of the copies, GGML_TYPE_COUNT = that of their layer
    llama_k_copies(const layers & keys, ggml_type type, uint64_t n_keys, uint32_t n_seq_max, uint32_t n_cells, bool no_alloc);

    int32_t slot_of(llama_seq_id seq_id, llama_pos pos, uint32_t cell) const {
        return by_cell ? cell : seq_id*n_slots + pos % n_slots;
    }

    bool holds(uint64_t n) const {
        return by_cell || n_slots >= n;
    }

    void breakdown(std::map<ggml_backend_buffer_type_t, size_t> & sizes) const;

    // never given twice, unlike an address
    const uint64_t serial;

    const uint64_t n_keys; // that were asked for

    uint32_t n_slots = 0; // of each sequence
    bool     by_cell = false;
    bool     no_alloc;

    std::vector<slot> slots;

    // by layer of the cache: [n_embd_k_gqa, slots.size()]
    layers k;

    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> ctxs_bufs;
};
