#pragma once

// Exact copies of the keys that a step of group attention may still move, beside a KV cache that quantises coarsely: a key
// that is moved again and again from its quantised form loses a little each time, one that is moved from its copy never.
// The copy of the key at position p of a sequence lies in a ring, at p modulo the slots of a sequence. What it holds is
// known by position: a copy that was overwritten, or that was never made, is not found, and its key moves as it is.

#include "llama.h"

#include "ggml-cpp.h"

#include <cstdint>
#include <utility>
#include <vector>

struct ggml_tensor;

struct llama_k_exact {
    // slots of each sequence, and the number of sequences
    uint32_t n_slots   = 0;
    uint32_t n_seq_max = 0;

    // by layer of the cache: f16 [n_embd_k_gqa, n_slots*n_seq_max]
    std::vector<ggml_tensor *> k;

    std::vector<std::pair<ggml_context_ptr, ggml_backend_buffer_ptr>> ctxs_bufs;

    // the key that each slot holds: its position in the text (-1 = none) and the position it is rotated for
    std::vector<llama_pos> pos;
    std::vector<llama_pos> rot;

    int32_t slot(llama_seq_id seq_id, llama_pos p) const {
        return seq_id*n_slots + p % n_slots;
    }

    // the slot that holds the copy of a key, -1 if none does
    int32_t find(llama_seq_id seq_id, llama_pos p) const {
        const int32_t res = slot(seq_id, p);

        return pos[res] == p ? res : -1;
    }

    // the slot for the copy of a key that is about to be written, rotated for position r
    int32_t claim(llama_seq_id seq_id, llama_pos p, llama_pos r) {
        const int32_t res = slot(seq_id, p);

        pos[res] = p;
        rot[res] = r;

        return res;
    }

    // the copies of a sequence (-1 = of all) are those of its keys no more
    void forget(llama_seq_id seq_id);
};
