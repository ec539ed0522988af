#pragma once

// Group attention (SelfExtend, arXiv:2401.01325) as one rotary position for each key and each query:
// keys near the query keep the text's positions, keys behind a boundary are rotated for position/n.
//
// The boundary moves in steps of r, so that all queries of a micro-batch share it and one attention call serves both
// levels. Everything here depends on (n, w, r) and a token's place in the text alone.
// This file knows no cache and no graph: the call sites ask it, it asks nobody.

#include "llama.h"

#include <unordered_map>

struct llama_group_attn {
    int32_t n = 1; // group size, 1 = off
    int32_t w = 0; // neighbour window: every query sees at least the last w keys before it at their exact distance
    int32_t r = 1; // the boundary moves in steps of r, a multiple of n

    bool enabled() const {
        return n > 1;
    }

    // the first key that the query at position i sees at its exact distance
    llama_pos boundary(llama_pos i) const {
        return enabled() && i >= w ? (i - w)/r*r : 0;
    }

    // the position that the key at position j is rotated for while the boundary is b (a multiple of r)
    llama_pos rotation(llama_pos j, llama_pos b) const {
        return j < b ? j/n : j - (b - b/n);
    }

    // the position that the query at position i is rotated for, and its own key when it enters the cache
    llama_pos rotation(llama_pos i) const {
        return rotation(i, boundary(i));
    }
};

// says where a micro-batch has to end: a sequence may not cross a step of its boundary inside of it
class llama_group_attn_cut {
public:
    explicit llama_group_attn_cut(const llama_group_attn & ga) : ga(ga) {}

    // may the token at position pos of sequence seq_id join the micro-batch?
    bool admit(llama_seq_id seq_id, llama_pos pos) {
        if (!ga.enabled()) {
            return true;
        }

        const llama_pos b = ga.boundary(pos);

        return boundaries.emplace(seq_id, b).first->second == b;
    }

private:
    const llama_group_attn ga;

    // sequence -> boundary of its tokens in this micro-batch
    std::unordered_map<llama_seq_id, llama_pos> boundaries;
};
