// The memory of a context in numbers that a C caller can read. With llama_model_params.no_alloc nothing is allocated
// and the numbers say what would be.

#include "llama-memory-use.h"

#include "llama-ext.h"

#include "ggml-backend.h"

void llama_get_memory_use(const llama_context * ctx, bool host, uint64_t * model, uint64_t * memory, uint64_t * compute) {
    *model   = 0;
    *memory  = 0;
    *compute = 0;

    for (const auto & [buft, use] : llama_get_memory_breakdown(ctx)) {
        if (ggml_backend_buft_is_host(buft) != host) {
            continue;
        }

        *model   += use.model;
        *memory  += use.context;
        *compute += use.compute;
    }
}
