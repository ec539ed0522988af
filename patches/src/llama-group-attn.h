#pragma once

// Group attention (SelfExtend, arXiv:2401.01325) as one rotary position for each key and each query: near keys keep
// their distance, far keys share the position of their group. With several levels, the farther the key the larger its
// group.
//
// The borders of the levels move in steps, so that all queries of a micro-batch (of recall: of a step) share them and one attention
// call serves all levels. Everything here depends on the levels and a token's place in the text alone.
// It knows no cache and no graph: the call sites ask it, it asks nobody.

#include "llama.h"
#include "llama-recall.h"

// keys at a distance of w or more share one position among n. the border moves in steps of r, a multiple of n
struct llama_group_attn_level {
    int32_t n;
    int32_t w;
    int32_t r;
};

#ifdef __cplusplus

#include <algorithm>
#include <array>
#include <unordered_map>
#include <vector>

struct llama_group_attn {
    static constexpr int32_t MAX_LEVELS = 8;

    // from the nearest to the farthest. n = 1 on the first one: off
    std::array<llama_group_attn_level, MAX_LEVELS> levels {{ { 1, 0, 1 } }};

    int32_t n_levels = 1;

    // added to each rotation: changes no distance, so no logit of a model whose keys are plain rotations (see the self-test)
    llama_pos offset = 0;

    // factor of the queries beyond the trained window: 1 + temperature*ln((i + 1)/window), see llama-attn-temperature.h. 0: off
    float   temperature = 0.0f;
    int32_t window      = 0;

    // far text is fetched: one level of n = infinity. see llama-recall.h
    llama_recall_params recall {};

    bool enabled() const {
        return levels[0].n > 1 || offset != 0;
    }

    // the first key that is not in level k or beyond, one for each level, as the query at some position sees it
    using borders = std::array<llama_pos, MAX_LEVELS>;

    borders borders_at(llama_pos i) const {
        borders res {};

        for (int32_t k = 0; enabled() && k < n_levels; ++k) {
            const auto & level = levels[k];

            res[k] = i >= level.w ? (i - level.w)/level.r*level.r : 0;

            // nothing has to be left out
            if (recall.n_fetched > 0 && res[k] <= recall.n_sinks + recall.n_fetched) {
                res[k] = 0;
            }
        }

        return res;
    }

    // Where a micro-batch that recalls has to end, if it begins at position i and n_left tokens are left. It holds whole steps, on a
    // grid of as many as there is room for, or a part of one.
    llama_pos recall_end(llama_pos i, int64_t n_ubatch, int64_t n_left) const {
        const int64_t r    = levels[0].r;
        const int64_t room = n_ubatch/r*r;
        const int64_t at   = i - levels[0].w % r;

        const int64_t n_steps = at % r == 0 && room > 0 ? std::min(room - at % room, n_left)/r : 0;

        return i + (n_steps > 0 ? n_steps*r : r - at % r);
    }

    // the position that the key at position j is rotated for while the borders are b
    llama_pos rotation(llama_pos j, const borders & b) const {
        llama_pos first = 0;      // of the present level
        llama_pos res   = offset; // the rotation of that

        for (int32_t k = n_levels; k-- > 0;) {
            if (j < b[k]) {
                return res + (j - first)/levels[k].n;
            }

            res  += (b[k] - first)/levels[k].n;
            first = b[k];
        }

        return res + (j - first);
    }

    // the position that the query at position i is rotated for, and its own key when it enters the cache
    llama_pos rotation(llama_pos i) const {
        return rotation(i, borders_at(i));
    }

    // the same of the tokens of a micro-batch, empty if they are the positions. recall: all have the border of the first one
    std::vector<llama_pos> rotations(const std::vector<llama_pos> & pos) const {
        std::vector<llama_pos> res;

        for (size_t i = 0; enabled() && i < pos.size(); ++i) {
            res.push_back(rotation(pos[i], borders_at(pos[recall.n_fetched > 0 ? 0 : i])));
        }

        return res;
    }
};

// says where a micro-batch has to end: a sequence may not cross a step of its borders inside of it, unless it recalls
class llama_group_attn_cut {
public:
    // n_left: tokens that no micro-batch has yet
    llama_group_attn_cut(const llama_group_attn & ga, int64_t n_ubatch, int64_t n_left) : ga(ga), n_ubatch(n_ubatch), n_left(n_left) {}

    // may the token at position pos of sequence seq_id join the micro-batch?
    bool admit(llama_seq_id seq_id, llama_pos pos) {
        if (!ga.enabled()) {
            return true;
        }

        const auto b = ga.borders_at(pos);

        if (end == 0 && borders.empty() && ga.recall.n_fetched > 0 && b[0] > 0) {
            end = ga.recall_end(pos, n_ubatch, n_left);
        }

        return end > 0 ? pos < end : borders.emplace(seq_id, b).first->second == b;
    }

private:
    const llama_group_attn ga;

    const int64_t n_ubatch;
    const int64_t n_left;

    llama_pos end = 0; // of a micro-batch that recalls

    // sequence -> borders of its tokens in this micro-batch
    std::unordered_map<llama_seq_id, llama_group_attn::borders> borders;
};

#endif
