#pragma once

// Flash attention of 1 to 31 queries of a sequence: a decode, drafts, texts side by side.
//
// Keys are taken in chunks of 256 at fixed places. Of a chunk, each score is a sum of vectors whose lanes are added at its
// end, four keys and a few rows at a time, and each weighted sum of values goes from key to key; then the chunks are joined
// in their order. So a query has the same bits whatever is computed beside it and however the work is divided: by
// chunks, whose sums are kept until all are there, or, where those would take too much memory, by key heads. A unit of work
// takes as many key heads at a time as there are threads to spare: they lie side by side, so memory is read in order.
//
// Memory is what few queries wait for. While a tile is computed the next one is fetched, row by row: all at once would have
// the first rows wait for the last.

#include "flash-attn-tile.h"

#include <type_traits>

namespace {

constexpr int64_t CHUNK       = 256;     // keys whose scores are weighed together
constexpr int64_t TILE        = 32;      // keys unpacked at once: of heads of 128 values, 16 KiB
constexpr int64_t FEW_ROWS    = 48;      // queries times heads of a unit of work; more where one query has more heads
constexpr int64_t KEPT_FLOATS = 2 << 20; // sums of chunks of more than one query: 8 MiB; else they aren't kept

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int AT_ONCE = 6; // rows; 6 × 4 accumulators of 32 registers
#else
constexpr int AT_ONCE = 3; // of 16
#endif

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// The sums of the lanes of four vectors.
void add_lanes(const GGML_F32_VEC (&x)[4], float * out) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
    __m256 y[4];
    for (int j = 0; j < 4; ++j) {
        y[j] = _mm256_add_ps(_mm512_castps512_ps256(x[j]), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x[j]), 1)));
    }
#else
    const __m256 (&y)[4] = x;
#endif
    const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(y[0], y[1]), _mm256_hadd_ps(y[2], y[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])));
#else
    for (int j = 0; j < 4; ++j) {
        float lanes[GGML_F32_EPR];
        GGML_F32_VEC_STORE(lanes, x[j]);
        out[j] = 0.0f;
        for (float lane : lanes) {
            out[j] += lane;
        }
    }
#endif
}

// Fetches a row that is a tile away to the second-level cache; to the first it was slower (docs/benchmarks.md). What lies beyond
// the end of a tensor isn't read.
void prefetch_far(const char * row, size_t size) {
#if defined(__GNUC__)
    for (size_t at = 0; at < size; at += 64) {
        __builtin_prefetch(row + at, 0, 2);
    }
#else
    GGML_UNUSED(row);
    GGML_UNUSED(size);
#endif
}

// Keys or values as vectors, `step` values of a row at a time: of a tile that was unpacked to f32, or unpacked on their way
// to few rows. Both are exact, so either has the same bits.
struct tile_rows {
    static constexpr int64_t step = GGML_F32_EPR;
    const float * data;
    int64_t       n;

    void fetch(int64_t) const {}

    GGML_F32_VEC load(int64_t row, int64_t i) const { return GGML_F32_VEC_LOAD(data + row * n + i); }
};

#if defined(__AVX2__) && defined(__F16C__)
#define UNPACKS_ON_THE_WAY

// Rows as they lie in memory, and those that are wanted after them.
struct packed_rows {
    const char * data;
    size_t       stride;
    const char * next;
    size_t       next_stride;
    size_t       size;

    void fetch(int64_t row) const { prefetch_far(next + row * next_stride, size); }
};

struct f16_rows : packed_rows {
    static constexpr int64_t step = GGML_F32_EPR;

    GGML_F32_VEC load(int64_t row, int64_t i) const {
        const ggml_fp16_t * from = (const ggml_fp16_t *) (data + row * stride) + i;
#if defined(__AVX512F__)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) from));
#else
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from));
#endif
    }
};

struct q8_0_rows : packed_rows {
    static constexpr int64_t step = QK8_0;

    GGML_F32_VEC load(int64_t row, int64_t i) const {
        const block_q8_0 * block = (const block_q8_0 *) (data + row * stride) + i / QK8_0;
        const GGML_F32_VEC d     = GGML_F32_VEC_SET1(_cvtsh_ss(block->d));
#if defined(__AVX512F__)
        return _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) (block->qs + i % QK8_0)))));
#else
        return _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) (block->qs + i % QK8_0)))));
#endif
    }
};
#endif

// Scores of R rows [n] and four keys from `first` on.
template <int R, typename Rows>
void score(const float * rows, const Rows & keys, int64_t first, int64_t n, float * scores, int64_t stride) {
    for (int j = 0; j < 4; ++j) {
        keys.fetch(first + j);
    }
    GGML_F32_VEC sums[R][4];
    for (int r = 0; r < R; ++r) {
        for (int j = 0; j < 4; ++j) {
            sums[r][j] = GGML_F32_VEC_ZERO;
        }
    }
    for (int64_t i = 0; i < n; i += Rows::step) {
        for (int64_t s = 0; s < Rows::step; s += GGML_F32_EPR) {
            GGML_F32_VEC x[R];
            for (int r = 0; r < R; ++r) {
                x[r] = GGML_F32_VEC_LOAD(rows + r * n + i + s);
            }
            for (int j = 0; j < 4; ++j) {
                const GGML_F32_VEC y = keys.load(first + j, i + s);
                for (int r = 0; r < R; ++r) {
                    sums[r][j] = GGML_F32_VEC_FMA(sums[r][j], x[r], y);
                }
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        add_lanes(sums[r], scores + r * stride);
    }
}

// Adds `n_keys` values [n] to the sums of R rows, by their weights.
template <int R, typename Rows>
void add_weighted(
        const float * weights, int64_t stride, const Rows & values, int64_t n_keys, int64_t n, float * sums, int64_t sums_stride) {
    for (int64_t i = 0; i < n; i += 4 * GGML_F32_EPR) {
        GGML_F32_VEC sum[R][4];
        for (int r = 0; r < R; ++r) {
            for (int c = 0; c < 4; ++c) {
                sum[r][c] = GGML_F32_VEC_LOAD(sums + r * sums_stride + i + c * GGML_F32_EPR);
            }
        }
        for (int64_t j = 0; j < n_keys; ++j) {
            if (i == 0) {
                values.fetch(j);
            }
            GGML_F32_VEC weight[R];
            for (int r = 0; r < R; ++r) {
                weight[r] = GGML_F32_VEC_SET1(weights[r * stride + j]);
            }
            for (int c = 0; c < 4; ++c) {
                const GGML_F32_VEC value = values.load(j, i + c * GGML_F32_EPR);
                for (int r = 0; r < R; ++r) {
                    sum[r][c] = GGML_F32_VEC_FMA(sum[r][c], value, weight[r]);
                }
            }
        }
        for (int r = 0; r < R; ++r) {
            for (int c = 0; c < 4; ++c) {
                GGML_F32_VEC_STORE(sums + r * sums_stride + i + c * GGML_F32_EPR, sum[r][c]);
            }
        }
    }
}

template <int R, typename F> void with_count(int64_t n, const F & f) {
    if (n == R) {
        f(std::integral_constant<int, R>());
    } else if constexpr (R > 1) {
        with_count<R - 1>(n, f);
    }
}

// f(first, how many) for stretches of rows of nearly the same length, at most AT_ONCE.
template <typename F> void for_rows(int64_t first, int64_t n, const F & f) {
    const int64_t parts = (n + AT_ONCE - 1) / AT_ONCE;
    for (int64_t p = 0; p < parts; ++p) {
        const int64_t from = n * p / parts;
        with_count<AT_ONCE>(n * (p + 1) / parts - from, [&](auto count) { f(first + from, count); });
    }
}

struct few {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    float   scale;
    float   softcap;
    int64_t group;   // query heads of a key head
    int64_t stretch; // queries of a unit of work
    int64_t n_k;     // values of a key, padded by zeros
    int64_t n_v;
    bool    keeps;   // the sums of chunks
    int64_t widest;  // key heads of a unit of work, at most; it depends on shapes alone
    int64_t heads;   // key heads of a unit of work

    few(const ggml_tensor * dst, int n_threads)
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]), sinks(dst->src[4]) {
        memcpy(&scale,   (const float *) dst->op_params + 0, sizeof(float));
        memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));
        group   = q->ne[2] / k->ne[2];
        stretch = std::min(q->ne[1], std::max<int64_t>(1, FEW_ROWS / group));
        n_k     = round_up(k->ne[0], GGML_F32_EPR);
        n_v     = round_up(v->ne[0], 4 * GGML_F32_EPR);
        keeps   = q->ne[1] == 1 || n_results() * n_chunks() * part_floats() <= KEPT_FLOATS;
        widest  = std::min(k->ne[2], std::max<int64_t>(1, FEW_ROWS / (group * stretch)));
        heads   = widest;
        while (heads > 1 && n_units() < 4 * n_threads) {
            heads = (heads + 1) / 2;
        }
    }

    int64_t rows()        const { return widest * group * stretch; }
    int64_t n_stretches() const { return (q->ne[1] + stretch - 1) / stretch; }
    int64_t n_chunks()    const { return (k->ne[1] + CHUNK - 1) / CHUNK; }
    int64_t n_results()   const { return q->ne[3] * q->ne[2] * q->ne[1]; }
    int64_t n_parts()     const { return (k->ne[2] + heads - 1) / heads; }
    int64_t n_units()     const { return q->ne[3] * n_stretches() * n_parts() * (keeps ? n_chunks() : 1); }

    // Of a query of a head and a chunk: sums, maximum, total.
    int64_t part_floats() const { return n_v + 2; }
    size_t  kept_floats() const { return keeps ? n_results() * n_chunks() * part_floats() : 0; }

    // Of a thread: queries, scores, the parts of a chunk and of those before it, a tile, a mask, what is hidden.
    size_t floats() const {
        return rows() * (n_k + CHUNK + 2 * part_floats()) + TILE * (std::max(n_k, n_v) + 1) + stretch * (CHUNK / TILE) + 64;
    }
};

// Joins the part of a chunk to that of all before it: relative to the larger maximum (online softmax). Never inlined, for its
// bits must be the same wherever it is called.
#if defined(__GNUC__)
__attribute__((noinline))
#endif
void join(float * all, const float * part, int64_t n) {
    if (part[n] == HIDDEN) {
        return;
    }
    const float maximum = std::max(all[n], part[n]);
    const float fade    = all[n] == HIDDEN ? 0.0f : expf(all[n] - maximum);
    const float weight  = expf(part[n] - maximum);
    for (int64_t i = 0; i < n; ++i) {
        all[i] = all[i] * fade + part[i] * weight;
    }
    all[n]      = maximum;
    all[n + 1]  = all[n + 1] * fade + part[n + 1] * weight;
}

void clear_part(float * part, int64_t n) {
    std::fill(part, part + n, 0.0f);
    part[n]     = HIDDEN;
    part[n + 1] = 0.0f;
}

// f(first query, how many) for each run of queries that see some of a tile.
template <typename F> void for_visible(const sight * seen, int64_t n, const F & f) {
    for (int64_t r = 0; r < n;) {
        int64_t end = r;
        while (end < n && seen[end * (CHUNK / TILE)] != sight::none) {
            ++end;
        }
        if (end > r) {
            f(r, end - r);
        }
        r = std::max(end, r + 1);
    }
}

// Rows of keys or values of a head.
struct place {
    const char * data;
    size_t       stride;
    size_t       size;
};

// A tile of them from `row` on, or the last one.
place place_of(const ggml_tensor * t, int64_t row, int64_t head, int64_t i3) {
    row = std::max<int64_t>(0, std::min(row, t->ne[1] - TILE));
    return { row_of(t, row, head, i3), t->nb[1], ggml_row_size(t->type, t->ne[0]) };
}

// A unit of work, and its place in the memory of a thread. Rows are key heads by queries by the heads that share a key head.
struct few_unit {
    const few & p;
    int64_t i3;
    int64_t k_head;  // the first
    int64_t n_heads; // key heads
    int64_t first;   // query
    int64_t n;       // queries
    int64_t k3;
    int64_t v3;
    float * queries; // [rows][n_k]
    float * scores;  // [rows][CHUNK]
    float * parts;   // [rows][part_floats]
    float * before;  // [rows][part_floats]
    float * tile;    // [TILE][n_k or n_v]
    float * hidden;  // [TILE]
    sight * seen;    // [queries][CHUNK / TILE]

    few_unit(const few & p, int64_t i3, int64_t part, int64_t stretch, float * work)
        : p(p), i3(i3), k_head(part * p.heads), n_heads(std::min(p.heads, p.k->ne[2] - k_head)), first(stretch * p.stretch),
          n(std::min(p.stretch, p.q->ne[1] - first)) {
        k3      = i3 / (p.q->ne[3] / p.k->ne[3]);
        v3      = i3 / (p.q->ne[3] / p.v->ne[3]);
        queries = work;
        scores  = queries + p.rows() * p.n_k;
        parts   = scores  + p.rows() * CHUNK;
        before  = parts   + p.rows() * p.part_floats();
        tile    = before  + p.rows() * p.part_floats();
        hidden  = tile    + TILE * std::max(p.n_k, p.n_v);
        seen    = (sight *) (hidden + TILE);

        const float scale = p.softcap != 0.0f ? p.scale / p.softcap : p.scale;
        for (int64_t row = 0; row < n_rows(); ++row) {
            float       * to   = queries + row * p.n_k;
            const float * from = (const float *) row_of(p.q, query(row), head(row), i3);
            for (int64_t i = 0; i < p.n_k; ++i) {
                to[i] = i < p.q->ne[0] ? from[i] * scale : 0.0f;
            }
        }
    }

    int64_t n_rows()           const { return n_heads * n * p.group; }
    int64_t query(int64_t row) const { return first + row / p.group % n; }
    int64_t head(int64_t row)  const { return (k_head + row / p.group / n) * p.group + row % p.group; }
    int64_t v_head(int64_t h)  const { return (k_head + h) / (p.k->ne[2] / p.v->ne[2]); }

    place key_place(int64_t key, int64_t h)   const { return place_of(p.k, key, k_head + h, k3); }
    place value_place(int64_t key, int64_t h) const { return place_of(p.v, key, v_head(h), v3); }

    // f(rows) with keys or values of a tile, [TILE][width], while those at `next` are fetched.
    template <typename F>
    void with_tile(
            const ggml_tensor * t, int64_t key, int64_t n_keys, int64_t head, int64_t t3, int64_t width, const place & next, const F & f) {
#if defined(UNPACKS_ON_THE_WAY)
        if (n * p.group <= 2 * AT_ONCE && n_keys == TILE && width == t->ne[0] && width % QK8_0 == 0) {
            const packed_rows rows = { row_of(t, key, head, t3), t->nb[1], next.data, next.stride, next.size };
            if (t->type == GGML_TYPE_F16) {
                f(f16_rows{ rows });
                return;
            }
            if (t->type == GGML_TYPE_Q8_0) {
                f(q8_0_rows{ rows });
                return;
            }
        }
#endif
        for (int64_t j = 0; j < TILE; ++j) {
            prefetch_far(next.data + j * next.stride, next.size);
        }
        for (int64_t j = 0; j < n_keys; ++j) {
            unpack_row(t->type, row_of(t, key + j, head, t3), t->ne[0], tile + j * width);
            std::fill(tile + j * width + t->ne[0], tile + (j + 1) * width, 0.0f);
        }
        std::fill(tile + n_keys * width, tile + TILE * width, 0.0f);
        f(tile_rows{ tile, width });
    }

    // f(first row, count) for stretches of the rows of key head `h` that see some of tile t.
    template <typename F> void for_seeing(int64_t h, int64_t t, const F & f) const {
        for_visible(seen + t, n, [&](int64_t from, int64_t count) { for_rows((h * n + from) * p.group, count * p.group, f); });
    }

    bool sees(int64_t t) const {
        bool any = false;
        for (int64_t r = 0; r < n; ++r) {
            any |= seen[r * (CHUNK / TILE) + t] != sight::none;
        }
        return any;
    }

    // f(row) for each row of query r.
    template <typename F> void for_heads(int64_t r, const F & f) const {
        for (int64_t h = 0; h < n_heads; ++h) {
            for (int64_t row = (h * n + r) * p.group; row < (h * n + r + 1) * p.group; ++row) {
                f(row);
            }
        }
    }

    void score_tile(int64_t key, int64_t n_keys, int64_t t, int64_t n_tiles) {
        for (int64_t r = 0; r < n; ++r) {
            const sight s = look(p.mask, i3, first + r, 1, key, n_keys);
            seen[r * (CHUNK / TILE) + t] = s == sight::all && n_keys < TILE ? sight::some : s;
            if (s == sight::none) {
                for_heads(r, [&](int64_t row) { std::fill_n(scores + row * CHUNK + t * TILE, TILE, HIDDEN); });
            }
        }
        if (!sees(t)) {
            return;
        }
        for (int64_t h = 0; h < n_heads; ++h) {
            const place next = t + 1 < n_tiles ? key_place(key + TILE, h) : value_place(key - t * TILE, h);
            with_tile(p.k, key, n_keys, k_head + h, k3, p.n_k, next, [&](const auto & keys) {
                for_seeing(h, t, [&](int64_t row, auto r) {
                    for (int64_t j = 0; j < TILE; j += 4) {
                        score<r()>(queries + row * p.n_k, keys, j, p.n_k, scores + row * CHUNK + t * TILE + j, CHUNK);
                    }
                });
            });
        }
        for (int64_t r = 0; r < n; ++r) {
            const sight s = seen[r * (CHUNK / TILE) + t];
            if (s == sight::none) {
                continue;
            }
            if (s == sight::some) {
                unpack_mask(p.mask, i3, first + r, 1, key, n_keys, TILE, hidden);
            }
            for_heads(r, [&](int64_t row) {
                float * x = scores + row * CHUNK + t * TILE;
                soften(x, TILE, p.softcap);
                if (s == sight::some) {
                    ggml_vec_add_f32(TILE, x, x, hidden);
                }
            });
        }
    }

    void compute_chunk(int64_t chunk) {
        const int64_t start   = chunk * CHUNK;
        const int64_t end     = std::min(start + CHUNK, p.k->ne[1]);
        const int64_t n_tiles = (end - start + TILE - 1) / TILE;
        for (int64_t t = 0; t < n_tiles; ++t) {
            score_tile(start + t * TILE, std::min(TILE, end - start - t * TILE), t, n_tiles);
        }
        for (int64_t row = 0; row < n_rows(); ++row) {
            float * part = parts + row * p.part_floats();
            clear_part(part, p.n_v);
            float & maximum = part[p.n_v];
            maximum = max_of(scores + row * CHUNK, n_tiles * TILE);
            if (maximum != HIDDEN) {
                part[p.n_v + 1] = weigh(scores + row * CHUNK, n_tiles * TILE, maximum);
            } else {
                std::fill_n(scores + row * CHUNK, n_tiles * TILE, 0.0f);
            }
        }
        for (int64_t t = 0; t < n_tiles; ++t) {
            if (!sees(t)) {
                continue;
            }
            const int64_t n_keys = std::min(TILE, end - start - t * TILE);
            for (int64_t h = 0; h < n_heads; ++h) {
                const place next = t + 1 < n_tiles ? value_place(start + (t + 1) * TILE, h) : key_place(end, h);
                with_tile(p.v, start + t * TILE, n_keys, v_head(h), v3, p.n_v, next, [&](const auto & values) {
                    for_seeing(h, t, [&](int64_t row, auto r) {
                        add_weighted<r()>(
                            scores + row * CHUNK + t * TILE, CHUNK, values, TILE, p.n_v, parts + row * p.part_floats(), p.part_floats());
                    });
                });
            }
        }
    }
};

// `unit` counts key heads first, so that threads read chunks side by side.
void compute_unit(const few & p, ggml_tensor * dst, int64_t unit, float * work, float * kept) {
    const int64_t part   = unit % p.n_parts();
    const int64_t chunk  = unit / p.n_parts() % (p.keeps ? p.n_chunks() : 1);
    const int64_t others = unit / p.n_parts() / (p.keeps ? p.n_chunks() : 1);
    const int64_t i3     = others / p.n_stretches();

    few_unit u(p, i3, part, others % p.n_stretches(), work);

    if (p.keeps) {
        u.compute_chunk(chunk);
        for (int64_t row = 0; row < u.n_rows(); ++row) {
            float * to = kept + (((i3 * p.q->ne[2] + u.head(row)) * p.q->ne[1] + u.query(row)) * p.n_chunks() + chunk) * p.part_floats();
            memcpy(to, u.parts + row * p.part_floats(), p.part_floats() * sizeof(float));
        }
        return;
    }
    for (int64_t row = 0; row < u.n_rows(); ++row) {
        clear_part(u.before + row * p.part_floats(), p.n_v);
    }
    for (int64_t c = 0; c < p.n_chunks(); ++c) {
        u.compute_chunk(c);
        for (int64_t row = 0; row < u.n_rows(); ++row) {
            join(u.before + row * p.part_floats(), u.parts + row * p.part_floats(), p.n_v);
        }
    }
    for (int64_t row = 0; row < u.n_rows(); ++row) {
        float * all = u.before + row * p.part_floats();
        const float * sink = p.sinks ? (const float *) p.sinks->data + u.head(row) : nullptr;
        write_result(dst, sink, i3, u.head(row), u.query(row), p.v->ne[0], all, all[p.n_v], all[p.n_v + 1]);
    }
}

void join_kept(const few & p, ggml_tensor * dst, int64_t result, float * all, const float * kept) {
    const int64_t query = result % p.q->ne[1];
    const int64_t head  = result / p.q->ne[1] % p.q->ne[2];
    const int64_t i3    = result / p.q->ne[1] / p.q->ne[2];
    clear_part(all, p.n_v);
    for (int64_t c = 0; c < p.n_chunks(); ++c) {
        join(all, kept + (result * p.n_chunks() + c) * p.part_floats(), p.n_v);
    }
    const float * sink = p.sinks ? (const float *) p.sinks->data + head : nullptr;
    write_result(dst, sink, i3, head, query, p.v->ne[0], all, all[p.n_v], all[p.n_v + 1]);
}

} // namespace
