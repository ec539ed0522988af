#include "recall-shares.h"

#include "own-kernels.h"
#include "simd-gemm.h"

// The kernel is written in ggml's vectors of a fixed length.
#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic)

#include "flash-attn-tile.h"

#include <vector>

namespace {

constexpr int64_t UNIT     = 12;  // rows that simd_gemm takes at once: 4 or 6
constexpr int64_t KEYS     = 64;  // keys of a tile
constexpr int64_t MANY     = 12;  // rows that share keys; fewer don't repay the transposition
constexpr int64_t MAX_HEAD = 256;
constexpr size_t  APART    = 64;  // floats between the scratch memories of two threads
constexpr int     LONGEST  = 256; // nodes

// Of which of root's planes is this plane of t the sum? Counts them.
bool count_planes(const ggml_tensor * t, const ggml_tensor * root, int64_t plane, std::vector<int> & counts) {
    if (t == root) {
        counts[plane]++;
        return true;
    }
    if (t->op == GGML_OP_VIEW) {
        const ggml_tensor * of = t->src[0];
        return t->view_src == (of->view_src ? of->view_src : of) && of->view_offs == 0
            && t->nb[1] == of->nb[1] && t->nb[2] == of->nb[2] && t->view_offs % of->nb[2] == 0
            && count_planes(of, root, plane + t->view_offs / of->nb[2], counts);
    }
    return t->op == GGML_OP_ADD && t->type == GGML_TYPE_F32 && ggml_are_same_shape(t->src[0], t->src[1])
        && count_planes(t->src[0], root, plane, counts) && count_planes(t->src[1], root, plane, counts);
}

// Is it the largest of each n1 by n0 values?
bool pools(const ggml_tensor * t, int64_t n1, int64_t n0) {
    const int32_t * p = (const int32_t *) t->op_params; // kind, kernel, stride, padding
    return p[0] == GGML_OP_POOL_MAX && p[1] == n0 && p[3] == n0 && p[2] == n1 && p[4] == n1 && p[5] == 0 && p[6] == 0
        && t->type == GGML_TYPE_F32 && n1 > 0 && t->src[0]->ne[1] % n1 == 0;
}

struct shares {
    const ggml_tensor * scores = nullptr; // MUL_MAT [n_keys, n_rows, key heads]
    const ggml_tensor * weights;          // SOFT_MAX
    const ggml_tensor * planes = nullptr; // RESHAPE [n_keys, n_looks, n_heads]
    const ggml_tensor * pool = nullptr;   // POOL_2D over the looks of each part, and over n_side keys if there is a second one
    const ggml_tensor * keys;
    const ggml_tensor * looks;            // [dk, n_rows, key heads]
    const ggml_tensor * mask;

    int     n_nodes; // behind the first one
    float   scale;
    int64_t n_keys;
    int64_t n_looks;
    int64_t n_each;  // looks of a part
    int64_t n_heads;
    int64_t n_side;
    int64_t n_rows;  // rows that share a key head
    int64_t padded;  // a multiple of UNIT
    int64_t n_tiles;

    shares(const ggml_cgraph * cgraph, int node_n) {
        const ggml_tensor * first = cgraph->nodes[node_n];

        if (first->op != GGML_OP_MUL_MAT || node_n + 2 >= cgraph->n_nodes || cgraph->nodes[node_n + 1]->op != GGML_OP_SOFT_MAX || !own_kernels()) {
            return;
        }

        weights = cgraph->nodes[node_n + 1];
        keys    = first->src[0];
        looks   = first->src[1];
        mask    = weights->src[1];

        float max_bias;
        memcpy(&scale,    (const float *) weights->op_params + 0, sizeof(float));
        memcpy(&max_bias, (const float *) weights->op_params + 1, sizeof(float));

        n_keys  = first->ne[0];
        n_rows  = first->ne[1];
        padded  = (n_rows + UNIT - 1) / UNIT * UNIT;
        n_tiles = (n_keys + KEYS - 1) / KEYS;

        const bool fits = unpacks(keys) && looks->type == GGML_TYPE_F32 && looks->nb[0] == sizeof(float)
            && keys->ne[0] <= MAX_HEAD && keys->ne[2] == first->ne[2] && n_rows >= MANY && first->ne[3] == 1 && ggml_is_contiguous(first)
            && weights->src[0] == first && max_bias == 0.0f && !weights->src[2] && weights->view_src == nullptr
            && (!mask || (mask->type == GGML_TYPE_F32 && mask->ne[2] == 1));

        if (!fits) {
            return;
        }

        std::vector<int>     ids;
        std::vector<ggml_op> ops;

        for (int i = node_n; i < cgraph->n_nodes && i < node_n + LONGEST; ++i) {
            const ggml_tensor * node = cgraph->nodes[i];

            ids.push_back(i);
            ops.push_back(node->op);

            if (node->op == GGML_OP_RESHAPE && !planes) {
                planes = node;
            } else if (node->op == GGML_OP_POOL_2D) {
                n_each = ((const int32_t *) node->op_params)[2];
                if (pools(node, n_each, 1)) {
                    pool = node;
                }
                break;
            } else if (i > node_n + 1 && node->op != GGML_OP_VIEW && node->op != GGML_OP_ADD) {
                break;
            }
        }

        if (!pool || planes->src[0] != weights || planes->ne[3] != 1 || pool->src[0]->ne[0] != n_keys || pool->src[0]->ne[2] != 1) {
            return;
        }

        n_looks = planes->ne[1];
        n_heads = planes->ne[2];

        std::vector<int> counts(n_heads);

        if (!count_planes(pool->src[0], planes, 0, counts) || std::any_of(counts.begin(), counts.end(), [](int n) { return n != 1; })) {
            return;
        }

        const int           next   = ids.back() + 1;
        const ggml_tensor * second = next < cgraph->n_nodes ? cgraph->nodes[next] : nullptr;

        n_side = 1;

        if (second && second->op == GGML_OP_POOL_2D && second->src[0] == pool) {
            const int64_t side = ((const int32_t *) second->op_params)[1];

            if (side > 0 && KEYS % side == 0 && n_keys % side == 0 && pools(second, 1, side)) {
                pool   = second;
                n_side = side;
                ids.push_back(next);
                ops.push_back(GGML_OP_POOL_2D);
            }
        }

        if (!ggml_can_fuse_subgraph_ext(cgraph, ids.data(), ids.size(), ops.data(), &ids.back(), 1)) {
            return;
        }

        n_nodes = (int) ids.size() - 1;
        scores  = first;
    }

    int64_t n_all()   const { return n_heads * n_looks; }
    int64_t n_parts() const { return n_looks / n_each; }

    // of all threads: for each tile and row its maximum, then its factor, and its total; the outcome
    size_t shared_floats() const { return 2 * n_tiles * n_all() + n_parts() * (n_keys / n_side) + APART; }

    // of a thread: queries, keys, some keys, scores
    size_t floats() const {
        const int64_t dk = keys->ne[0];
        return keys->ne[2] * padded * dk + KEYS * dk + AT_A_TIME * dk + padded * KEYS + n_parts() * KEYS + APART;
    }
};

// Keys from `first` on transposed: [dk][KEYS].
void unpack_keys(const ggml_tensor * keys, int64_t first, int64_t n, int64_t head, float * some, float * out) {
    const int64_t dk = keys->ne[0];
    if (n < KEYS) {
        std::fill(out, out + KEYS * dk, 0.0f);
    }
    for (int64_t j = 0; j < n; j += AT_A_TIME) {
        const int64_t count = std::min(AT_A_TIME, n - j);
        for (int64_t i = 0; i < count; ++i) {
            const char * from = row_of(keys, first + j + i, head, 0);
            const bool   more = head + 1 < keys->ne[2];
            // the next head's, or the first one's of the next tile
            prefetch(row_of(keys, more ? first + j + i : std::min(first + j + i + KEYS, keys->ne[1] - 1), more ? head + 1 : 0, 0), ggml_row_size(keys->type, dk));
            if (keys->type != GGML_TYPE_F32) {
                unpack_row(keys->type, from, dk, some + i * dk);
            }
        }
        if (keys->type == GGML_TYPE_F32) {
            transpose((const float *) row_of(keys, first + j, head, 0), count, dk, keys->nb[1] / sizeof(float), out + j, KEYS);
        } else {
            transpose(some, count, dk, dk, out + j, KEYS);
        }
    }
}

// The largest of what the looks of each part give to each key of a tile of n, all heads together: best [n_looks / n_each][KEYS].
// weights: [n_heads * n_looks][n], factors: of the rows
void find_best(const float * weights, const float * factors, int64_t n_heads, int64_t n_looks, int64_t n_each, int64_t n, float * best) {
    const auto keep = [&](int64_t l, int64_t j, float sum) {
        float & x = best[l / n_each * KEYS + j];
        x = l % n_each > 0 && x > sum ? x : sum;
    };
    int64_t j = 0;
    for (; j + 4 * GGML_F32_EPR <= n; j += 4 * GGML_F32_EPR) {
        float sums[4 * GGML_F32_EPR];
        for (int64_t l = 0; l < n_looks; ++l) {
            GGML_F32_VEC sum[4];
            for (int i = 0; i < 4; ++i) {
                sum[i] = GGML_F32_VEC_ZERO;
            }
            for (int64_t row = l; row < n_heads * n_looks; row += n_looks) {
                const GGML_F32_VEC factor = GGML_F32_VEC_SET1(factors[row]);
                for (int i = 0; i < 4; ++i) {
                    sum[i] = GGML_F32_VEC_FMA(sum[i], GGML_F32_VEC_LOAD(weights + row * n + j + i * GGML_F32_EPR), factor);
                }
            }
            for (int i = 0; i < 4; ++i) {
                GGML_F32_VEC_STORE(sums + i * GGML_F32_EPR, sum[i]);
            }
            for (int i = 0; i < 4 * GGML_F32_EPR; ++i) {
                keep(l, j + i, sums[i]);
            }
        }
    }
    for (; j < n; ++j) {
        for (int64_t l = 0; l < n_looks; ++l) {
            float sum = 0.0f;
            for (int64_t row = l; row < n_heads * n_looks; row += n_looks) {
                sum += weights[row * n + j] * factors[row];
            }
            keep(l, j, sum);
        }
    }
}

void compute(const ggml_compute_params * params, const shares & s) {
    const int64_t dk    = s.keys->ne[0];
    const int64_t n_all = s.n_all();

    const int64_t n_parts = s.n_parts();

    float * maxima = (float *) params->wdata;       // [n_tiles][n_all], then factors
    float * totals = maxima + s.n_tiles * n_all;    // [n_tiles][n_all]
    float * found  = totals + s.n_tiles * n_all;    // [parts][n_keys / n_side]
    float * looks  = (float *) params->wdata + s.shared_floats() + params->ith * s.floats(); // [key heads][padded][dk]
    float * keys   = looks + s.keys->ne[2] * s.padded * dk;                                  // [dk][KEYS]
    float * some   = keys  + KEYS * dk;                                                      // [AT_A_TIME][dk]
    float * tile   = some  + AT_A_TIME * dk;                                                 // [padded][KEYS]
    float * best   = tile  + s.padded * KEYS;                                                // [parts][KEYS]

    // where the product would lie, tile after tile: [n_all][keys of the tile]
    float * stored = (float *) s.scores->data;

    for (int64_t h = 0; h < s.keys->ne[2]; ++h) {
        for (int64_t r = 0; r < s.padded; ++r) {
            float * to = looks + (h * s.padded + r) * dk;
            if (r < s.n_rows) {
                memcpy(to, row_of(s.looks, r, h, 0), dk * sizeof(float));
                ggml_vec_scale_f32(dk, to, s.scale);
            } else {
                std::fill(to, to + dk, 0.0f);
            }
        }
    }

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    for (int64_t t = params->ith; t < s.n_tiles; t = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t key = t * KEYS;
        const int64_t n   = std::min(KEYS, s.n_keys - key);

        for (int64_t h = 0; h < s.keys->ne[2]; ++h) {
            unpack_keys(s.keys, key, n, h, some, keys);
            std::fill(tile, tile + s.padded * KEYS, 0.0f);
            simd_gemm(tile, looks + h * s.padded * dk, keys, s.padded, dk, KEYS);

            for (int64_t r = 0; r < s.n_rows; ++r) {
                const int64_t row = h * s.n_rows + r;
                float * x = tile + r * KEYS;
                if (s.mask) {
                    ggml_vec_add_f32(n, x, x, (const float *) ((const char *) s.mask->data + r * s.mask->nb[1]) + key);
                }
                std::fill(x + n, x + KEYS, HIDDEN);
                const float maximum = max_of(x, KEYS);
                float * to = stored + key * n_all + row * n;
                maxima[t * n_all + row] = maximum;
                if (maximum == HIDDEN) {
                    totals[t * n_all + row] = 0.0f;
                    std::fill(to, to + n, 0.0f);
                } else if (n == KEYS) {
                    totals[t * n_all + row] = weigh(x, KEYS, maximum, to);
                } else {
                    totals[t * n_all + row] = weigh(x, KEYS, maximum);
                    memcpy(to, x, n * sizeof(float));
                }
            }
        }
    }
    ggml_barrier(params->threadpool);

    // what the weights of a tile are multiplied by to become shares
    for (int64_t row = params->ith; row < n_all; row += params->nth) {
        float maximum = HIDDEN;
        for (int64_t t = 0; t < s.n_tiles; ++t) {
            maximum = std::max(maximum, maxima[t * n_all + row]);
        }
        double total = 0.0;
        for (int64_t t = 0; t < s.n_tiles; ++t) {
            float & x = maxima[t * n_all + row];
            x = x == HIDDEN ? 0.0f : expf(x - maximum);
            total += x * totals[t * n_all + row];
        }
        for (int64_t t = 0; t < s.n_tiles; ++t) {
            maxima[t * n_all + row] *= total > 0.0 ? 1.0 / total : 0.0;
        }
    }
    ggml_barrier(params->threadpool);

    for (int64_t t = params->ith; t < s.n_tiles; t += params->nth) {
        const int64_t key = t * KEYS;
        const int64_t n   = std::min(KEYS, s.n_keys - key);

        find_best(stored + key * n_all, maxima + t * n_all, s.n_heads, s.n_looks, s.n_each, n, best);
        for (int64_t part = 0; part < n_parts; ++part) {
            for (int64_t j = 0; j < n; j += s.n_side) {
                const float * x = best + part * KEYS + j;
                found[(part * s.n_keys + key + j) / s.n_side] = *std::max_element(x, x + s.n_side);
            }
        }
    }
    ggml_barrier(params->threadpool);

    // it may lie where the product does
    if (params->ith == 0) {
        memcpy(s.pool->data, found, n_parts * (s.n_keys / s.n_side) * sizeof(float));
    }
}

} // namespace

size_t ggml_recall_shares_work_size(const ggml_cgraph * cgraph, int node_n, int n_threads) {
    const shares s(cgraph, node_n);
    return s.scores ? sizeof(float) * (s.shared_floats() + s.floats() * n_threads) : 0;
}

int ggml_compute_recall_shares(const ggml_compute_params * params, const ggml_cgraph * cgraph, int node_n) {
    const shares s(cgraph, node_n);
    if (!s.scores) {
        return 0;
    }
    compute(params, s);
    return s.n_nodes;
}

#else

size_t ggml_recall_shares_work_size(const ggml_cgraph *, int, int) { return 0; }
int    ggml_compute_recall_shares(const ggml_compute_params *, const ggml_cgraph *, int) { return 0; }

#endif
