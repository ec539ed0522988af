#pragma once

// A KV cache that lies in a file: memory holds of it what is in use, and the system reads and writes the rest. For recall, which
// reads a small part of a long text at a time; any other attention reads all of the cache for each token.
//
// The file has no name from the moment that it is open, so nothing stays behind, whatever ends the process. Its room on the disk is
// taken before the first token. What keys and values need besides (copies, means, what is fetched) stays in memory.

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

    // Contexts that this thread makes from now on have the keys and values of layers on the host in a file in this folder
    // null: in memory. Linux and macOS; elsewhere, and where there is no room, contexts can't be made, and the log says why
    LLAMA_API void llama_set_kv_folder(const char * folder);

    // Bytes of keys and values in a file. With llama_model_params.no_alloc: that would be
    LLAMA_API uint64_t llama_get_kv_file_size(const struct llama_context * ctx);

#ifdef __cplusplus
}

#include "ggml-backend.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// of one cache
struct llama_kv_file {
    llama_kv_file(); // in the folder of this thread
    ~llama_kv_file();

    llama_kv_file(const llama_kv_file &) = delete;
    llama_kv_file & operator=(const llama_kv_file &) = delete;

    // do tensors that would lie, or lie, in a buffer of this type lie in a file?
    bool takes(ggml_backend_buffer_type_t buft) const;

    // a buffer for the tensors of ctx, in the file or of this type. null, or throws std::runtime_error, if there is no room
    ggml_backend_buffer_t alloc(ggml_context * ctx, ggml_backend_buffer_type_t buft);

    // zeros a buffer, see llama_kv_zero()
    void zero(ggml_backend_buffer_t buffer) const;

private:
    struct mapping {
        void * base;
        size_t size;
        int    fd;
    };

    std::string folder;

    std::vector<mapping> mappings;
};
#endif
