#pragma once

// Computes the K-shifts of one KV cache, with a scheduler and a graph of its own: a shift leaves the context's graphs,
// their reservation and their CUDA graphs alone, and shifts of equally many rows share one graph.
// It owns no keys and decides no rotation: the cache says which rows move, and by how much.

#include "llama.h"
#include "llama-graph.h"
#include "llama-k-exact.h"

#include "ggml-cpp.h"

#include <cstdint>
#include <vector>

// the K rows that a K-shift rotates, and by how much
struct llama_k_shift_rows {
    bool exact    = false; // read the keys from their exact copies (see llama-k-exact.h)
    bool in_place = false; // rotate the rows where they are: they lie side by side, in a type that RoPE takes

    std::vector<int32_t>   from; // where each key is read
    std::vector<int32_t>   rows; // where it is written: cell + stream*kv_size
    std::vector<llama_pos> shift;
};

struct llama_k_shift {
    // what the graph's inputs read when it is computed
    llama_k_shift_rows cur;

    // null until the first shift. outlived by the backends
    llm_graph_result_ptr   res;
    ggml_backend_sched_ptr sched;

    // what the graph is built and allocated for: how many rows (0 = none), from which copies (null = from the cache), and in
    // place from which row on (-1 = any rows)
    size_t  n_rows = 0;
    int32_t first  = -1;

    const llama_k_exact * exact = nullptr;

    // fill an input of the graph. it lies where it is read, so the device is told in order instead of waited for
    void set(ggml_tensor * dst, const std::vector<int32_t> & src) const;
};
