#pragma once

// Computes the K-shifts of one KV cache, with a scheduler and a graph of its own: a shift leaves the context's graphs,
// their reservation and their CUDA graphs alone, and shifts of equally many rows share one graph (but for those in place).
// It owns no keys and decides no rotation: llama-kv-keys.h says which rows move, and by how much.

#include "llama.h"
#include "llama-graph.h"

#include "ggml-cpp.h"

#include <cstdint>
#include <map>
#include <vector>

class llama_kv_cache;

struct llama_k_copies;
struct llama_kv_keys;

// the K rows that a K-shift rotates, and by how much
struct llama_k_shift_rows {
    const llama_k_copies * source = nullptr; // read the keys from these copies (null = from the cache)
    const llama_k_copies * keep   = nullptr; // copy the keys as they are before

    bool in_place = false; // rotate the rows where they are: they lie side by side, in a type that RoPE takes

    std::vector<int32_t>   from;  // where each key is read
    std::vector<int32_t>   rows;  // where it is written: cell + stream*kv_size
    std::vector<int32_t>   slots; // where it is kept
    std::vector<llama_pos> shift;
};

struct llama_k_shift {
    // what the graph's inputs read when it is computed
    llama_k_shift_rows cur;

    std::vector<llama_pos> shifts; // in all dimensions of a position

    // null until the first shift. outlived by the backends
    llm_graph_result_ptr   res;
    ggml_backend_sched_ptr sched;

    // what the graph is built and allocated for: how many rows (0 = none), in place from which row on (-1 = any rows)
    size_t  n_rows = 0;
    int32_t first  = -1;

    // the serials of the copies that it reads and writes, 0 = none
    uint64_t source = 0;
    uint64_t keep   = 0;

    // fill an input of the graph. it lies where it is read, so the device is told in order instead of waited for
    void set(ggml_tensor * dst, const std::vector<int32_t> & src) const;
};

// cur: f32 [n_embd_head, n_head, n_rows], or in place of any type that RoPE takes
// hadamard: only a quantised K is stored under it. it spans whole heads, so it is undone on whole heads
ggml_tensor * llama_k_shift_rope(
        ggml_context * ctx, const llama_model & model, const llama_cparams & cparams,
        ggml_tensor * cur, ggml_tensor * shift, ggml_tensor * hadamard, bool in_place, uint32_t il);

// a shift of each vector, in all dimensions of a position: the first three of a text token in M-RoPE are equal, the fourth is 0
std::vector<llama_pos> llama_k_shift_dimensions(std::vector<llama_pos> shifts, size_t n_pos);

// of one context, by cache
struct llama_k_shifts {
    // rotate these rows
    // again: nothing else has been computed since the last ones
    static bool run(llama_context & lctx, const llama_kv_keys & keys, const llama_k_shift_rows & rows, bool again);

    // the size of the compute buffers
    size_t memory(ggml_backend_t backend) const;

    std::map<const llama_kv_cache *, llama_k_shift> shifts;
};
