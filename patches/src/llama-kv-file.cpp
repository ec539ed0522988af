// See llama-kv-file.h.

#include "llama-kv-file.h"

#include "llama-context.h"
#include "llama-group-attn-api.h"
#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-kv-keys.h"
#include "llama-kv-pages.h"

#include "ggml-alloc.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>

static thread_local std::string kv_folder;

llama_kv_file::llama_kv_file() : folder(kv_folder) {}

bool llama_kv_file::takes(ggml_backend_buffer_type_t buft) const {
    // of real tensors in a file the type is another one on the host
    return !folder.empty() && (buft == ggml_backend_cpu_buffer_type() || strcmp(ggml_backend_buft_name(buft), "CPU_Mapped") == 0);
}

#if defined(__linux__) || defined(__APPLE__)

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

// takes room for a file on the disk: a write through a mapping that finds none would end the process. 0, or an errno
static int take_room(int fd, size_t size) {
#if defined(__APPLE__)
    fstore_t store = { F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t) size, 0 };

    return fcntl(fd, F_PREALLOCATE, &store) == 0 && ftruncate(fd, size) == 0 ? 0 : errno;
#else
    return posix_fallocate(fd, 0, size);
#endif
}

static std::runtime_error no_file(const std::string & folder, size_t size, int error) {
    return std::runtime_error(format("no file of %.0f MiB for the KV cache in %s: %s", size/1024.0/1024.0, folder.c_str(), strerror(error)));
}

ggml_backend_buffer_t llama_kv_file::alloc(ggml_context * ctx, ggml_backend_buffer_type_t buft) {
    if (!takes(buft)) {
        return ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft);
    }

    const size_t page = sysconf(_SC_PAGESIZE);
    const size_t size = GGML_PAD(std::max<size_t>(1, ggml_backend_alloc_ctx_tensors_from_buft_size(ctx, buft)), page);

    std::string name = folder + "/kv-XXXXXX";

    const int fd = mkstemp(&name[0]);

    if (fd < 0) {
        throw no_file(folder, size, errno);
    }

    unlink(name.c_str());

    if (const int error = take_room(fd, size)) {
        close(fd);
        throw no_file(folder, size, error);
    }

    void * base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (base == MAP_FAILED) {
        const int error = errno;
        close(fd);
        throw no_file(folder, size, error);
    }

    // spans are read here and there
    madvise(base, size, MADV_RANDOM);

    mappings.push_back({ base, size, fd });

    ggml_backend_buffer_t buffer = ggml_backend_cpu_buffer_from_ptr(base, size);

    ggml_tallocr allocr = ggml_tallocr_new(buffer);

    for (ggml_tensor * t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) {
        if ((t->view_src ? ggml_backend_view_init(t) : ggml_tallocr_alloc(&allocr, t)) != GGML_STATUS_SUCCESS) {
            ggml_backend_buffer_free(buffer);
            return nullptr;
        }
    }

    return buffer;
}

llama_kv_file::~llama_kv_file() {
    for (const auto & m : mappings) {
        munmap(m.base, m.size);
        close(m.fd);
    }
}

void llama_kv_file::zero(ggml_backend_buffer_t buffer) const {
    for (const auto & m : mappings) {
        if (m.base == ggml_backend_buffer_get_base(buffer)) {
            // what the file holds there are zeros or keys and values of an earlier text, as in cells that are used again
            return;
        }
    }

    llama_kv_zero(buffer);
}

#else

ggml_backend_buffer_t llama_kv_file::alloc(ggml_context * ctx, ggml_backend_buffer_type_t buft) {
    if (takes(buft)) {
        throw std::runtime_error("a KV cache in a file is for Linux and macOS");
    }

    return ggml_backend_alloc_ctx_tensors_from_buft(ctx, buft);
}

llama_kv_file::~llama_kv_file() {}

void llama_kv_file::zero(ggml_backend_buffer_t buffer) const {
    llama_kv_zero(buffer);
}

#endif

uint64_t llama_kv_keys::file_size() const {
    uint64_t size = 0;

    for (const auto & [ctx, buf] : kv.ctxs_bufs) {
        const auto buft = ggml_backend_buffer_get_type(buf.get());

        if (kv.file.takes(buft)) {
            size += kv.hparams.no_alloc ? ggml_backend_alloc_ctx_tensors_from_buft_size(ctx.get(), buft) : ggml_backend_buffer_get_size(buf.get());
        }
    }

    return size;
}

//
// C API
//

void llama_set_kv_folder(const char * folder) {
    kv_folder = folder ? folder : "";
}

uint64_t llama_get_kv_file_size(const llama_context * ctx) {
    uint64_t size = 0;

    for (const auto * keys : llama_kv_keys_of(llama_get_memory(ctx))) {
        size += keys->file_size();
    }

    return size;
}
