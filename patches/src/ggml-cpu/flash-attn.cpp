#include "flash-attn.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "simd-gemm.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

constexpr int64_t UNIT        = 12;         // rows that simd_gemm takes at once: 4 or 6
constexpr int64_t ROWS        = 5 * UNIT;   // queries of a head that meet a tile of keys at once
constexpr int64_t KEYS        = 64;         // keys of a tile
constexpr int64_t CHUNK       = 4 * KEYS;   // keys that few queries meet at once; the same on any number of threads
constexpr int64_t MANY        = 32;         // queries; fewer don't repay the transposition of keys
constexpr int64_t MAX_HEAD    = 256;        // longer heads don't fit the first-level cache
constexpr size_t  BLOCK_BYTES = 256 * 1024; // queries and sums of a block: half of a usual second-level cache
constexpr size_t  APART       = 64;         // floats between the scratch memories of two threads
constexpr float   HIDDEN      = -INFINITY;

// The work is divided into blocks: of few queries all heads by a chunk of keys, which lie side by side in memory; of many,
// query heads that share a key head by a stretch of queries.
struct plan {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    float   scale;
    float   softcap;
    bool    few;       // queries
    int64_t group;     // query heads of a key head
    int64_t heads;     // of them at a time
    int64_t n_parts;   // times
    int64_t stretch;   // queries at a time
    int64_t chunk;     // keys at a time: all of them for many queries

    plan(const ggml_tensor * dst, int n_threads)
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]), sinks(dst->src[4]) {
        memcpy(&scale,   (const float *) dst->op_params + 0, sizeof(float));
        memcpy(&softcap, (const float *) dst->op_params + 2, sizeof(float));

        few   = q->ne[1] < MANY;
        group = q->ne[2] / k->ne[2];
        chunk = few ? CHUNK : k->ne[1];

        const int64_t least = few ? q->ne[1] : ROWS;
        const int64_t room  = std::max<int64_t>(1, BLOCK_BYTES / (sizeof(float) * least * (k->ne[0] + v->ne[0])));
        heads   = std::min(group, room);
        n_parts = (group + heads - 1) / heads;
        stretch = few ? least : room / heads * least;
        // rather small blocks than threads without work
        while (stretch > least && n_blocks() < 3 * n_threads) {
            stretch -= least;
        }
    }

    int64_t n_stretches() const { return (q->ne[1] + stretch - 1) / stretch; }
    int64_t n_chunks()    const { return (k->ne[1] + chunk - 1) / chunk; }
    int64_t n_blocks()    const { return few ? q->ne[3] * n_chunks() : q->ne[3] * k->ne[2] * n_parts * n_stretches(); }
    int64_t rows()        const { return heads * stretch; }

    // Of a thread: queries, sums, maxima, totals, scores, mask, keys, values, one key.
    size_t floats() const {
        const int64_t dk = k->ne[0];
        const int64_t dv = v->ne[0];
        return rows() * (dk + dv + 2) + 2 * ROWS * KEYS + KEYS * (dk + dv) + dk + APART;
    }

    // Sum, maximum and total of each query of each head over each chunk, for all threads; none if there is one chunk.
    int64_t part_floats()   const { return v->ne[0] + 2; }
    size_t  shared_floats() const {
        return n_chunks() > 1 ? q->ne[3] * q->ne[2] * q->ne[1] * n_chunks() * part_floats() + APART : 0;
    }
    float * part(float * shared, int64_t i3, int64_t head, int64_t query, int64_t chunk) const {
        return shared + (((i3 * q->ne[2] + head) * q->ne[1] + query) * n_chunks() + chunk) * part_floats();
    }
};

// What of a tile of the mask can be seen. Writes it to `out` [n_rows][KEYS] if that differs from value to value.
enum class sight { none, all, some };

sight look(const ggml_tensor * mask, int64_t i3, int64_t row, int64_t n_rows, int64_t key, int64_t n_keys, float * out) {
    const auto at = [&](int64_t r) {
        return (const ggml_fp16_t *) ((const char *) mask->data + (row + r) * mask->nb[1] + (i3 % mask->ne[3]) * mask->nb[3]) + key;
    };
    bool none = true;
    bool all  = n_keys == KEYS;
    for (int64_t r = 0; r < n_rows && (none || all); ++r) {
        const ggml_fp16_t * m = at(r);
        uint16_t zero = 0;
        uint16_t inf  = 0;
        for (int64_t j = 0; j < n_keys; ++j) {
            uint16_t bits;
            memcpy(&bits, m + j, sizeof(bits));
            zero |= bits;
            inf  |= bits ^ 0xFC00;
        }
        all  = all  && zero == 0;
        none = none && inf  == 0;
    }
    if (none || all) {
        return none ? sight::none : sight::all;
    }
    for (int64_t r = 0; r < n_rows; ++r) {
        ggml_cpu_fp16_to_fp32(at(r), out + r * KEYS, n_keys);
        std::fill(out + r * KEYS + n_keys, out + (r + 1) * KEYS, HIDDEN);
    }
    return sight::some;
}

// The same where there is no mask: the keys that there are.
sight look(int64_t n_rows, int64_t n_keys, float * out) {
    if (n_keys == KEYS) {
        return sight::all;
    }
    for (int64_t r = 0; r < n_rows; ++r) {
        std::fill(out + r * KEYS,          out + r * KEYS + n_keys, 0.0f);
        std::fill(out + r * KEYS + n_keys, out + (r + 1) * KEYS,    HIDDEN);
    }
    return sight::some;
}

float max_of(const float * x) {
    float a[16];
    float b[8];
    float c[4];
    memcpy(a, x, sizeof(a));
    for (int64_t j = 16; j < KEYS; j += 16) {
        for (int l = 0; l < 16; ++l) { a[l] = a[l] > x[j + l] ? a[l] : x[j + l]; }
    }
    for (int l = 0; l < 8; ++l) { b[l] = a[l] > a[l + 8] ? a[l] : a[l + 8]; }
    for (int l = 0; l < 4; ++l) { c[l] = b[l] > b[l + 4] ? b[l] : b[l + 4]; }
    return std::max(std::max(c[0], c[1]), std::max(c[2], c[3]));
}

const float * row_of(const ggml_tensor * t, int64_t row, int64_t head, int64_t i3, float * unpacked) {
    const char * data = (const char *) t->data + row * t->nb[1] + head * t->nb[2] + i3 * t->nb[3];
    if (t->type == GGML_TYPE_F32) {
        return (const float *) data;
    }
    if (t->type == GGML_TYPE_F16) {
        ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) data, unpacked, t->ne[0]);
    } else {
        ggml_get_type_traits(t->type)->to_float(data, unpacked, t->ne[0]);
    }
    return unpacked;
}

// Few queries wait for memory most of the time: fetch a row while another is computed.
void prefetch(const char * row, size_t size) {
#if defined(__GNUC__)
    for (size_t at = 0; at < size; at += 64) {
        __builtin_prefetch(row + at);
    }
#else
    GGML_UNUSED(row);
    GGML_UNUSED(size);
#endif
}

// Rows [n][ne[0]] of a head, and zeros up to KEYS of them.
void unpack(const ggml_tensor * t, int64_t first, int64_t n, int64_t head, int64_t i3, float * out) {
    for (int64_t j = 0; j < n; ++j) {
        const float * from = row_of(t, first + j, head, i3, out + j * t->ne[0]);
        if (from != out + j * t->ne[0]) {
            memcpy(out + j * t->ne[0], from, t->ne[0] * sizeof(float));
        }
    }
    std::fill(out + n * t->ne[0], out + KEYS * t->ne[0], 0.0f);
}

// The same transposed: [ne[0]][KEYS].
void unpack_transposed(const ggml_tensor * t, int64_t first, int64_t n, int64_t head, int64_t i3, float * one, float * out) {
    if (n < KEYS) {
        std::fill(out, out + KEYS * t->ne[0], 0.0f);
    }
    for (int64_t j = 0; j < n; ++j) {
        const float * from = row_of(t, first + j, head, i3, one);
        for (int64_t d = 0; d < t->ne[0]; ++d) {
            out[d * KEYS + j] = from[d];
        }
    }
}

// Scores become weights relative to the maximum so far; `sum` and `total` are brought to that maximum (online softmax).
void weigh(float * scores, float * sum, int64_t dv, float & maximum, float & total) {
    const float found = std::max(maximum, max_of(scores));
    if (found == HIDDEN) {
        std::fill(scores, scores + KEYS, 0.0f);
        return;
    }
    if (found > maximum) {
        const float fade = expf(maximum - found);
        ggml_vec_scale_f32(dv, sum, fade);
        total  *= fade;
        maximum = found;
    }
    total += (float) ggml_vec_soft_max_f32(KEYS, scores, scores, maximum);
}

void write(const plan & p, ggml_tensor * dst, int64_t i3, int64_t head, int64_t query, float * sum, float maximum, float total) {
    const int64_t dv = p.v->ne[0];
    if (p.sinks) {
        const float sink  = ((const float *) p.sinks->data)[head];
        const float found = std::max(maximum, sink);
        const float fade  = expf(maximum - found);
        ggml_vec_scale_f32(dv, sum, fade);
        total = total * fade + expf(sink - found);
    }
    ggml_vec_scale_f32(dv, sum, total == 0.0f ? 0.0f : 1.0f / total);
    memcpy((char *) dst->data + head * dst->nb[1] + query * dst->nb[2] + i3 * dst->nb[3], sum, dv * sizeof(float));
}

// The keys of a chunk pass by the queries of some heads, tile by tile.
void compute_heads(
        const plan & p, ggml_tensor * dst, int64_t i3, int64_t k_head, int64_t part, int64_t first, int64_t chunk,
        float * work, float * shared) {
    const int64_t dk = p.k->ne[0];
    const int64_t dv = p.v->ne[0];

    const int64_t k3     = i3 / (p.q->ne[3] / p.k->ne[3]);
    const int64_t v3     = i3 / (p.q->ne[3] / p.v->ne[3]);
    const int64_t v_head = k_head / (p.k->ne[2] / p.v->ne[2]);

    const int64_t head    = k_head * p.group + part * p.heads;
    const int64_t n_heads = std::min(p.heads, p.group - part * p.heads);
    const int64_t n_rows  = std::min(p.stretch, p.q->ne[1] - first);
    const int64_t end     = std::min((chunk + 1) * p.chunk, p.k->ne[1]);

    float * queries = work;                            // [heads][stretch][dk]
    float * sums    = queries + p.rows() * dk;         // [heads][stretch][dv]
    float * maxima  = sums    + p.rows() * dv;         // [heads][stretch]
    float * totals  = maxima  + p.rows();              // [heads][stretch]
    float * scores  = totals  + p.rows();              // [ROWS][KEYS]
    float * mask    = scores  + ROWS * KEYS;           // [ROWS][KEYS]
    float * keys    = mask    + ROWS * KEYS;           // [dk][KEYS], of few queries [KEYS][dk]
    float * values  = keys    + KEYS * dk;             // [KEYS][dv]
    float * one     = values  + KEYS * dv;             // [dk]

    const char * k_row  = (const char *) p.k->data + k_head * p.k->nb[2] + k3 * p.k->nb[3];
    const char * v_row  = (const char *) p.v->data + v_head * p.v->nb[2] + v3 * p.v->nb[3];
    const size_t k_size = ggml_row_size(p.k->type, dk);
    const size_t v_size = ggml_row_size(p.v->type, dv);

    const float scale = p.softcap != 0.0f ? p.scale / p.softcap : p.scale;
    for (int64_t h = 0; h < n_heads; ++h) {
        for (int64_t r = 0; r < n_rows; ++r) {
            float * to = queries + (h * p.stretch + r) * dk;
            memcpy(to, row_of(p.q, first + r, head + h, i3, nullptr), dk * sizeof(float));
            ggml_vec_scale_f32(dk, to, scale);
        }
        std::fill(queries + (h * p.stretch + n_rows) * dk, queries + (h + 1) * p.stretch * dk, 0.0f);
    }
    std::fill(sums,   sums   + p.rows() * dv, 0.0f);
    std::fill(totals, totals + p.rows(),      0.0f);
    std::fill(maxima, maxima + p.rows(),      HIDDEN);

    for (int64_t key = chunk * p.chunk; key < end; key += KEYS) {
        const int64_t n_keys = std::min(KEYS, end - key);
        bool unpacked = false;

        const int64_t step = p.few ? 1 : ROWS;
        for (int64_t at = 0; at < n_rows; at += step) {
            const int64_t n = std::min(step, n_rows - at);
            const int64_t m = p.few ? n : (n + UNIT - 1) / UNIT * UNIT;
            const sight   s = p.mask ? look(p.mask, i3, first + at, n, key, n_keys, mask) : look(n, n_keys, mask);
            if (s == sight::none) {
                continue;
            }
            if (!unpacked) {
                unpacked = true;
                if (p.few) {
                    unpack(p.k, key, n_keys, k_head, k3, keys);
                } else {
                    unpack_transposed(p.k, key, n_keys, k_head, k3, one, keys);
                }
                unpack(p.v, key, n_keys, v_head, v3, values);
            }
            for (int64_t h = 0; h < n_heads; ++h) {
                const int64_t row = h * p.stretch + at;
                if (p.few) {
                    for (int64_t j = 0; j < KEYS; ++j) {
                        if (h == 0 && key + KEYS + j < p.k->ne[1]) {
                            prefetch(k_row + (key + KEYS + j) * p.k->nb[1], k_size);
                            prefetch(v_row + (key + KEYS + j) * p.v->nb[1], v_size);
                        }
                        ggml_vec_dot_f32(dk, scores + j, 0, queries + row * dk, 0, keys + j * dk, 0, 1);
                    }
                } else {
                    std::fill(scores, scores + m * KEYS, 0.0f);
                    simd_gemm(scores, queries + row * dk, keys, m, dk, KEYS);
                }
                if (p.softcap != 0.0f) {
                    ggml_vec_tanh_f32(n * KEYS, scores, scores);
                    ggml_vec_scale_f32(n * KEYS, scores, p.softcap);
                }
                if (s == sight::some) {
                    ggml_vec_add_f32(n * KEYS, scores, scores, mask);
                }
                for (int64_t r = 0; r < n; ++r) {
                    weigh(scores + r * KEYS, sums + (row + r) * dv, dv, maxima[row + r], totals[row + r]);
                }
                simd_gemm(sums + row * dv, scores, values, m, KEYS, dv);
            }
        }
    }

    for (int64_t h = 0; h < n_heads; ++h) {
        for (int64_t r = 0; r < n_rows; ++r) {
            const int64_t row = h * p.stretch + r;
            if (p.n_chunks() == 1) {
                write(p, dst, i3, head + h, first + r, sums + row * dv, maxima[row], totals[row]);
            } else {
                float * part = p.part(shared, i3, head + h, first + r, chunk);
                memcpy(part, sums + row * dv, dv * sizeof(float));
                part[dv]     = maxima[row];
                part[dv + 1] = totals[row];
            }
        }
    }
}

void compute_block(const plan & p, ggml_tensor * dst, int64_t block, float * work, float * shared) {
    if (p.few) {
        for (int64_t i = 0; i < p.k->ne[2] * p.n_parts; ++i) {
            compute_heads(p, dst, block / p.n_chunks(), i / p.n_parts, i % p.n_parts, 0, block % p.n_chunks(), work, shared);
        }
        return;
    }
    const int64_t stretch = block % p.n_stretches();
    const int64_t part    = block / p.n_stretches() % p.n_parts;
    const int64_t k_head  = block / p.n_stretches() / p.n_parts % p.k->ne[2];
    const int64_t i3      = block / p.n_stretches() / p.n_parts / p.k->ne[2];
    compute_heads(p, dst, i3, k_head, part, stretch * p.stretch, 0, work, shared);
}

// The chunks of a query of a head, in their order.
void join_chunks(const plan & p, ggml_tensor * dst, int64_t i3, int64_t head, int64_t query, float * sum, float * shared) {
    const int64_t dv = p.v->ne[0];
    float maximum = HIDDEN;
    float total   = 0.0f;
    for (int64_t c = 0; c < p.n_chunks(); ++c) {
        maximum = std::max(maximum, p.part(shared, i3, head, query, c)[dv]);
    }
    std::fill(sum, sum + dv, 0.0f);
    for (int64_t c = 0; c < p.n_chunks(); ++c) {
        const float * part = p.part(shared, i3, head, query, c);
        if (part[dv] != HIDDEN) {
            const float fade = expf(part[dv] - maximum);
            ggml_vec_mad_f32(dv, sum, part, fade);
            total += fade * part[dv + 1];
        }
    }
    write(p, dst, i3, head, query, sum, maximum, total);
}

bool unpacks(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 || t->type == GGML_TYPE_F16 || (ggml_is_quantized(t->type) && ggml_get_type_traits(t->type)->to_float);
}

bool supports(const ggml_tensor * dst) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    float max_bias;
    memcpy(&max_bias, (const float *) dst->op_params + 1, sizeof(float));

    // simd_gemm has no tail of columns but on x86
#if defined(__ARM_FEATURE_SVE)
    const bool even = false;
#elif defined(__x86_64__) || defined(_M_X64)
    const bool even = true;
#else
    const bool even = v->ne[0] % 8 == 0;
#endif
    return even && max_bias == 0.0f && q->type == GGML_TYPE_F32 && unpacks(k) && unpacks(v) && k->ne[0] <= MAX_HEAD
        && v->ne[0] <= MAX_HEAD && (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[2] == 1));
}

} // namespace

size_t ggml_flash_attn_work_size(const ggml_tensor * dst, int n_threads) {
    if (!supports(dst)) {
        return 0;
    }
    const plan p(dst, n_threads);
    return sizeof(float) * (p.shared_floats() + p.floats() * n_threads);
}

bool ggml_compute_forward_flash_attn(const ggml_compute_params * params, ggml_tensor * dst) {
    if (!supports(dst)) {
        return false;
    }
    const plan p(dst, params->nth);

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    float * shared = (float *) params->wdata;
    float * work   = shared + p.shared_floats() + params->ith * p.floats();
    for (int64_t block = params->ith; block < p.n_blocks(); block = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        compute_block(p, dst, block, work, shared);
    }
    if (p.n_chunks() > 1) {
        ggml_barrier(params->threadpool);
        const int64_t n = p.q->ne[3] * p.q->ne[2] * p.q->ne[1];
        for (int64_t i = params->ith; i < n; i += params->nth) {
            join_chunks(p, dst, i / p.q->ne[1] / p.q->ne[2], i / p.q->ne[1] % p.q->ne[2], i % p.q->ne[1], work, shared);
        }
    }
    return true;
}
