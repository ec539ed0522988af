// See llama-kv-pages.h.

#include "llama-kv-pages.h"

#if defined(__linux__)

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

// gives the pages of private anonymous memory back: the system hands out zeros where they are touched again
static bool give_back(uint8_t * begin, uint8_t * end) {
    // what another allocator maps there may keep its values
    *begin = 1;

    return madvise(begin, end - begin, MADV_DONTNEED) == 0 && *begin == 0;
}

void llama_kv_zero(ggml_backend_buffer_t buffer) {
    const auto page = (uintptr_t) sysconf(_SC_PAGESIZE);
    const auto size = ggml_backend_buffer_get_size(buffer);

    if (ggml_backend_buffer_get_type(buffer) == ggml_backend_cpu_buffer_type() && size >= 2*page) {
        auto * const begin = (uint8_t *) ggml_backend_buffer_get_base(buffer);
        auto * const end   = begin + size;

        auto * const first = (uint8_t *) (((uintptr_t) begin + page - 1)/page*page);
        auto * const last  = (uint8_t *) ((uintptr_t) end/page*page);

        if (give_back(first, last)) {
            memset(begin, 0, first - begin);
            memset(last,  0, end - last);

            return;
        }
    }

    ggml_backend_buffer_clear(buffer, 0);
}

#else

void llama_kv_zero(ggml_backend_buffer_t buffer) {
    ggml_backend_buffer_clear(buffer, 0);
}

#endif
