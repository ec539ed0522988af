// See llama-k-copies.h.

#include "llama-k-copies.h"

#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <atomic>
#include <new>

static std::atomic<uint64_t> last_serial;

llama_k_copies::llama_k_copies(
        const layers & keys, ggml_type type, uint64_t n_keys, uint32_t n_seq_max, uint32_t n_cells, bool no_alloc) :
    serial(++last_serial), n_keys(n_keys), no_alloc(no_alloc) {
    by_cell = n_keys*n_seq_max >= n_cells;
    n_slots = by_cell ? n_cells : n_keys;

    slots.resize(by_cell ? n_cells : n_keys*n_seq_max);

    // a copy lies where the keys of its layer lie
    std::map<ggml_backend_buffer_type_t, ggml_context_ptr> ctxs;

    for (ggml_tensor * key : keys) {
        if (!key) {
            k.push_back(nullptr);
            continue;
        }

        auto & ctx = ctxs[ggml_backend_buffer_get_type(key->buffer)];

        if (!ctx) {
            ctx.reset(ggml_init({ keys.size()*ggml_tensor_overhead(), nullptr, /*.no_alloc =*/ true }));
        }

        k.push_back(ggml_new_tensor_2d(ctx.get(), type == GGML_TYPE_COUNT ? key->type : type, key->ne[0], slots.size()));

        ggml_format_name(k.back(), "%s_copies", key->name);
    }

    for (auto & [buft, ctx] : ctxs) {
        ggml_backend_buffer_t buf;

        if (no_alloc) {
            buf = ggml_backend_buft_alloc_buffer(buft, /*size =*/ 0);

            for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t; t = ggml_get_next_tensor(ctx.get(), t)) {
                t->buffer = buf;
            }
        } else {
            buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft);
        }

        if (!buf) {
            throw std::bad_alloc();
        }

        ctxs_bufs.emplace_back(std::move(ctx), buf);
    }
}

void llama_k_copies::breakdown(std::map<ggml_backend_buffer_type_t, size_t> & sizes) const {
    for (const auto & [ctx, buf] : ctxs_bufs) {
        const auto buft = ggml_backend_buffer_get_type(buf.get());

        sizes[buft] += no_alloc ? ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), buft) : ggml_backend_buffer_get_size(buf.get());
    }
}
