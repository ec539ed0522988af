#include "flash-attn.h"

#include "own-kernels.h"
#include "simd-gemm.h"

// The kernels are written in ggml's vectors of a fixed length.
#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic)

#include "flash-attn-few.h"
#include "flash-attn-int16.h"
#include "flash-attn-tile.h"

namespace {

constexpr int64_t UNIT        = 12;         // rows that simd_gemm takes at once: 4 or 6
constexpr int64_t ROWS        = 5 * UNIT;   // queries of a head that meet a tile of keys at once
constexpr int64_t KEYS        = 64;         // keys of a tile
constexpr int64_t MANY        = 32;         // queries; fewer don't repay the transposition of keys
constexpr int64_t MAX_HEAD    = 256;        // longer heads don't fit the first-level cache
constexpr size_t  BLOCK_BYTES = 256 * 1024; // queries and sums of a block: half of a usual second-level cache
constexpr size_t  APART       = 64;         // floats between the scratch memories of two threads

// The work is divided into blocks: query heads that share a key head by a stretch of queries.
struct plan {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    float   scale;
    float   softcap;
    int64_t group;     // query heads of a key head
    int64_t heads;     // of them at a time
    int64_t n_parts;   // times
    int64_t widest;    // queries at a time, at most; it depends on shapes alone
    int64_t stretch;   // queries at a time
    bool    int16;     // products of keys
    bool    int16_v;   // products of values

    plan(const ggml_tensor * dst, int n_threads)
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]), sinks(dst->src[4]) {
        memcpy(&scale,   (const float *) dst->op_params + 0, sizeof(float));
        memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));

        group = q->ne[2] / k->ne[2];
#if defined(MULTIPLIES_INT16)
        int16 = k->type == GGML_TYPE_Q8_0;
#else
        int16 = false;
#endif
#if defined(WEIGHS_INT16)
        int16_v = v->type == GGML_TYPE_Q8_0;
#else
        int16_v = false;
#endif

        const int64_t room = std::max<int64_t>(1, BLOCK_BYTES / (sizeof(float) * ROWS * (k->ne[0] + v->ne[0])));
        heads   = std::min(group, room);
        n_parts = (group + heads - 1) / heads;
        widest  = room / heads * ROWS;
        stretch = widest;
        // rather small blocks than threads without work
        while (stretch > ROWS && n_blocks() < 3 * n_threads) {
            stretch -= ROWS;
        }
    }

    int64_t n_stretches() const { return (q->ne[1] + stretch - 1) / stretch; }
    int64_t n_blocks()    const { return q->ne[3] * k->ne[2] * n_parts * n_stretches(); }
    int64_t rows()        const { return heads * stretch; }

    // Of a thread: queries, sums, maxima, totals, scores, mask, keys, values, some keys, weights of 16 bits and their units. The
    // same for any number of threads, since there may be fewer than were planned.
    size_t floats() const {
        const int64_t dk = k->ne[0];
        const int64_t dv = v->ne[0];
        return heads * widest * (dk + dv + 2) + 2 * ROWS * KEYS + KEYS * (dk + dv) + AT_A_TIME * dk + UNIT * (dv / QK8_0 + dv) + APART;
    }
};

// Rows [n][ne[0]] of a head, and zeros up to KEYS of them.
void unpack(const ggml_tensor * t, int64_t first, int64_t n, int64_t head, int64_t i3, float * out) {
    for (int64_t j = 0; j < n; ++j) {
        unpack_row(t->type, row_of(t, first + j, head, i3), t->ne[0], out + j * t->ne[0]);
    }
    std::fill(out + n * t->ne[0], out + KEYS * t->ne[0], 0.0f);
}

// The same transposed: [ne[0]][KEYS].
void unpack_transposed(const ggml_tensor * t, int64_t first, int64_t n, int64_t head, int64_t i3, float * some, float * out) {
    if (n < KEYS) {
        std::fill(out, out + KEYS * t->ne[0], 0.0f);
    }
    for (int64_t j = 0; j < n; j += AT_A_TIME) {
        const int64_t count = std::min(AT_A_TIME, n - j);
        for (int64_t i = 0; i < count; ++i) {
            unpack_row(t->type, row_of(t, first + j + i, head, i3), t->ne[0], some + i * t->ne[0]);
        }
        transpose(some, count, t->ne[0], t->ne[0], out + j, KEYS);
    }
}

// Brings `sum` and `total` to the maximum so far (online softmax); returns whether anything was seen yet.
bool raise(float found, float * sum, int64_t dv, float & maximum, float & total) {
    if (found > maximum) {
        const float fade = expf(maximum - found);
        ggml_vec_scale_f32(dv, sum, fade);
        total  *= fade;
        maximum = found;
    }
    return maximum != HIDDEN;
}

// Scores become weights relative to the maximum so far.
void weigh_tile(float * scores, float * sum, int64_t dv, float & maximum, float & total) {
    if (raise(max_of(scores, KEYS), sum, dv, maximum, total)) {
        total += weigh(scores, KEYS, maximum);
    } else {
        std::fill(scores, scores + KEYS, 0.0f);
    }
}

// The keys pass by the queries of some heads, tile by tile.
void compute_block(const plan & p, ggml_tensor * dst, int64_t block, float * work) {
    const int64_t first  = block % p.n_stretches() * p.stretch;
    const int64_t part   = block / p.n_stretches() % p.n_parts;
    const int64_t k_head = block / p.n_stretches() / p.n_parts % p.k->ne[2];
    const int64_t i3     = block / p.n_stretches() / p.n_parts / p.k->ne[2];

    const int64_t dk = p.k->ne[0];
    const int64_t dv = p.v->ne[0];

    const int64_t k3     = i3 / (p.q->ne[3] / p.k->ne[3]);
    const int64_t v3     = i3 / (p.q->ne[3] / p.v->ne[3]);
    const int64_t v_head = k_head / (p.k->ne[2] / p.v->ne[2]);

    const int64_t head    = k_head * p.group + part * p.heads;
    const int64_t n_heads = std::min(p.heads, p.group - part * p.heads);
    const int64_t n_rows  = std::min(p.stretch, p.q->ne[1] - first);

    float * queries = work;                            // [heads][stretch][dk], if int16 half of it in pairs of 16 bits
    float * sums    = queries + p.rows() * dk;         // [heads][stretch][dv]
    float * maxima  = sums    + p.rows() * dv;         // [heads][stretch]
    float * totals  = maxima  + p.rows();              // [heads][stretch]
    float * scores  = totals  + p.rows();              // [ROWS][KEYS]
    float * mask    = scores  + ROWS * KEYS;           // [ROWS][KEYS]
    float * keys    = mask    + ROWS * KEYS;           // [dk][KEYS], if int16 [dk / 2][KEYS] in pairs and their scales
    float * values  = keys    + KEYS * dk;             // [KEYS][dv], if int16_v [KEYS / 2][dv] in pairs, their scales and start
    float * some    = values  + KEYS * dv;             // [AT_A_TIME][dk]

#if defined(MULTIPLIES_INT16)
    int32_t * pairs       = (int32_t *) queries;             // [heads][stretch][dk / 2]
    float   * pair_scales = queries + p.rows() * dk / 2;     // [heads][stretch]
    float   * key_scales  = keys + KEYS * dk / 2;            // [dk / QK8_0][KEYS]
#endif
#if defined(WEIGHS_INT16)
    float   * units         = some + AT_A_TIME * dk;             // [UNIT][dv / QK8_0]
    int32_t * weights       = (int32_t *) (units + UNIT * dv / QK8_0); // [UNIT][dv / QK8_0][KEYS / 2] in pairs of 16 bits
    float   * value_scales  = values + KEYS * dv / 2;            // [dv / QK8_0][KEYS]
    int32_t * value_start   = (int32_t *) (value_scales + KEYS * dv / QK8_0); // [dv]
    if (p.int16_v) {
        std::fill_n(units, UNIT * (dv / QK8_0 + dv), 0.0f);
    }
#endif

    const float scale = p.softcap != 0.0f ? p.scale / p.softcap : p.scale;
    for (int64_t h = 0; h < n_heads; ++h) {
#if defined(MULTIPLIES_INT16)
        if (p.int16) {
            int32_t * to = pairs + h * p.stretch * dk / 2;
            std::fill_n(to, p.stretch * dk / 2, 0);
            for (int64_t r = 0; r < n_rows; ++r) {
                const float * from  = (const float *) row_of(p.q, first + r, head + h, i3);
                int32_t     * place = to + r / INT16_ROWS * INT16_ROWS * dk / 2 + r % INT16_ROWS;
                pair_scales[h * p.stretch + r] = scale * round_query(from, dk, place);
            }
            std::fill_n(pair_scales + h * p.stretch + n_rows, p.stretch - n_rows, 0.0f);
            continue;
        }
#endif
        for (int64_t r = 0; r < n_rows; ++r) {
            float * to = queries + (h * p.stretch + r) * dk;
            memcpy(to, row_of(p.q, first + r, head + h, i3), dk * sizeof(float));
            ggml_vec_scale_f32(dk, to, scale);
        }
        std::fill(queries + (h * p.stretch + n_rows) * dk, queries + (h + 1) * p.stretch * dk, 0.0f);
    }
    std::fill(sums,   sums   + p.rows() * dv, 0.0f);
    std::fill(totals, totals + p.rows(),      0.0f);
    std::fill(maxima, maxima + p.rows(),      HIDDEN);

    for (int64_t key = 0; key < p.k->ne[1]; key += KEYS) {
        const int64_t n_keys = std::min(KEYS, p.k->ne[1] - key);
        bool unpacked = false;

        for (int64_t at = 0; at < n_rows; at += ROWS) {
            const int64_t n = std::min(ROWS, n_rows - at);
            const int64_t m = p.int16 ? (n + UNIT - 1) / UNIT * UNIT : (n + GEMM_RM - 1) / GEMM_RM * GEMM_RM;
            const sight   s = look(p.mask, i3, first + at, n, key, n_keys);
            if (s == sight::none) {
                continue;
            }
            const bool masked = s == sight::some || n_keys < KEYS;
            if (masked) {
                unpack_mask(p.mask, i3, first + at, n, key, n_keys, KEYS, mask);
            }
            if (!unpacked) {
                unpacked = true;
#if defined(MULTIPLIES_INT16)
                if (p.int16) {
                    std::fill(keys, n_keys < KEYS ? keys + KEYS * dk : keys, 0.0f);
                    for (int64_t j = 0; j < n_keys; ++j) {
                        unpack_key<KEYS>((const block_q8_0 *) row_of(p.k, key + j, k_head, k3), dk, j, (int32_t *) keys, key_scales);
                    }
                } else
#endif
                unpack_transposed(p.k, key, n_keys, k_head, k3, some, keys);
#if defined(WEIGHS_INT16)
                if (p.int16_v) {
                    const auto row_at = [&](int64_t j) { return (const block_q8_0 *) row_of(p.v, key + j, v_head, v3); };
                    unpack_values<KEYS>(row_at, n_keys, dv, (int32_t *) values, value_scales, value_start);
                } else
#endif
                unpack(p.v, key, n_keys, v_head, v3, values);
            }
            for (int64_t h = 0; h < n_heads; ++h) {
                const int64_t row = h * p.stretch + at;
#if defined(MULTIPLIES_INT16)
                if (p.int16) {
                    score_int16<KEYS>(pairs + row * dk / 2, pair_scales + row, m, (const int32_t *) keys, key_scales, dk, scores);
                } else
#endif
                {
                    std::fill(scores, scores + m * KEYS, 0.0f);
                    simd_gemm(scores, queries + row * dk, keys, m, dk, KEYS);
                }
                soften(scores, n * KEYS, p.softcap);
                if (masked) {
                    ggml_vec_add_f32(n * KEYS, scores, scores, mask);
                }
#if defined(WEIGHS_INT16)
                if (p.int16_v) {
                    for (int64_t from = 0; from < n; from += UNIT) {
                        for (int64_t r = from; r < std::min(from + UNIT, n); ++r) {
                            int16_t * to   = (int16_t *) (weights + (r - from) * dv / QK8_0 * (KEYS / 2));
                            float   * unit = units + (r - from) * dv / QK8_0;
                            if (raise(max_of(scores + r * KEYS, KEYS), sums + (row + r) * dv, dv, maxima[row + r], totals[row + r])) {
                                totals[row + r] += weigh_int16<KEYS>(scores + r * KEYS, maxima[row + r], value_scales, dv / QK8_0, to, unit);
                            } else {
                                std::fill_n(unit, dv / QK8_0, 0.0f);
                            }
                        }
                        add_int16<KEYS>(weights, units, UNIT, (const int32_t *) values, value_start, dv, sums + (row + from) * dv);
                    }
                    continue;
                }
#endif
                for (int64_t r = 0; r < n; ++r) {
                    weigh_tile(scores + r * KEYS, sums + (row + r) * dv, dv, maxima[row + r], totals[row + r]);
                }
                simd_gemm(sums + row * dv, scores, values, m, KEYS, dv);
            }
        }
    }

    for (int64_t h = 0; h < n_heads; ++h) {
        const float * sink = p.sinks ? (const float *) p.sinks->data + head + h : nullptr;
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t row = h * p.stretch + r;
            write_result(dst, sink, i3, head + h, first + r, dv, sums + row * dv, maxima[row], totals[row]);
        }
    }
}

bool supports(const ggml_tensor * dst) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    float max_bias;
    memcpy(&max_bias, (const float *) dst->op_params + 1, sizeof(float));

    // simd_gemm has no tail of columns but on x86
#if defined(__x86_64__) || defined(_M_X64)
    const bool even = true;
#else
    const bool even = v->ne[0] % 8 == 0;
#endif
    return own_kernels() && even && max_bias == 0.0f && q->type == GGML_TYPE_F32 && unpacks(k) && unpacks(v) && k->ne[0] <= MAX_HEAD
        && v->ne[0] <= MAX_HEAD && (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1));
}

void start(const ggml_compute_params * params) {
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
}

void compute_few(const ggml_compute_params * params, ggml_tensor * dst) {
    const few p(dst, params->nth);
    float * kept = (float *) params->wdata;
    float * work = kept + p.kept_floats() + APART + params->ith * p.floats();

    start(params);
    for (int64_t unit = params->ith; unit < p.n_units(); unit = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        compute_unit(p, dst, unit, work, kept);
    }
    if (p.keeps) {
        ggml_barrier(params->threadpool);
        for (int64_t i = params->ith; i < p.n_results(); i += params->nth) {
            join_kept(p, dst, i, work, kept);
        }
    }
}

void compute_many(const ggml_compute_params * params, ggml_tensor * dst) {
    const plan p(dst, params->nth);
    float * work = (float *) params->wdata + params->ith * p.floats();

    start(params);
    for (int64_t block = params->ith; block < p.n_blocks(); block = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        compute_block(p, dst, block, work);
    }
}

} // namespace

size_t ggml_flash_attn_work_size(const ggml_tensor * dst, int n_threads) {
    if (!supports(dst)) {
        return 0;
    }
    if (dst->src[0]->ne[1] < MANY) {
        const few p(dst, n_threads);
        return sizeof(float) * (p.kept_floats() + APART + p.floats() * n_threads);
    }
    return sizeof(float) * plan(dst, n_threads).floats() * n_threads;
}

bool ggml_compute_forward_flash_attn(const ggml_compute_params * params, ggml_tensor * dst) {
    if (!supports(dst)) {
        return false;
    }
    if (dst->src[0]->ne[1] < MANY) {
        compute_few(params, dst);
    } else {
        compute_many(params, dst);
    }
    return true;
}

#else

size_t ggml_flash_attn_work_size(const ggml_tensor *, int) { return 0; }
bool   ggml_compute_forward_flash_attn(const ggml_compute_params *, ggml_tensor *) { return false; }

#endif
