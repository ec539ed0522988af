#pragma once

// GGML_CPU_OWN_KERNELS=0 in the environment leaves everything to ggml's kernels, as where ours don't compute it: to compare
// with them, in speed or bit for bit.

#include <cstdlib>
#include <cstring>

inline bool own_kernels() {
    static const bool res = [] {
        const char * value = getenv("GGML_CPU_OWN_KERNELS");
        return !value || strcmp(value, "0") != 0;
    }();
    return res;
}
