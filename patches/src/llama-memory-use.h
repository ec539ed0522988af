#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

    // Bytes that the weights, the memory and the compute buffers of the context take on the host or on its devices
    // With llama_model_params.no_alloc: what they would take
    LLAMA_API void llama_get_memory_use(
      const struct llama_context * ctx,
                            bool   host,
                        uint64_t * model,
                        uint64_t * memory,
                        uint64_t * compute);

#ifdef __cplusplus
}
#endif
