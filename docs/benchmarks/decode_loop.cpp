// What docs/benchmarks/driver.py holds the Python driver against: the plainest loop over llama.h, on the same context.

#include "llama.h"

#include <cstdint>
#include <string>

extern "C" {

// Evaluates a prompt in batches of n_batch. Returns 0, or what llama_decode returned.
int32_t loop_prefill(llama_context * ctx, llama_token * tokens, int32_t n_tokens, int32_t n_batch) {
    for (int32_t i = 0; i < n_tokens; i += n_batch) {
        const int32_t n = n_tokens - i < n_batch ? n_tokens - i : n_batch;
        if (const int32_t code = llama_decode(ctx, llama_batch_get_one(tokens + i, n))) {
            return code;
        }
    }
    llama_synchronize(ctx);
    return 0;
}

// Draws and evaluates n_tokens tokens and puts their text together. Returns the bytes of it, or -1.
int32_t loop_decode(llama_context * ctx, llama_sampler * sampler, int32_t n_tokens, llama_token * out) {
    const llama_vocab * vocab = llama_model_get_vocab(llama_get_model(ctx));
    std::string text;
    char piece[256];
    for (int32_t i = 0; i < n_tokens; i++) {
        out[i] = llama_sampler_sample(sampler, ctx, -1);
        const int32_t n = llama_token_to_piece(vocab, out[i], piece, sizeof(piece), 0, false);
        text.append(piece, n > 0 ? n : 0);
        if (llama_decode(ctx, llama_batch_get_one(out + i, 1)) != 0) {
            return -1;
        }
    }
    return static_cast<int32_t>(text.size());
}

}
