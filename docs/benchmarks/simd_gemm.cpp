// The speed of ggml's f32 matrix kernel, simd_gemm, in GFLOP/s of one core.
//
//     G=TREE/vendor/llama.cpp/ggml; g++ -O3 -march=native -I$G/src/ggml-cpu -I$G/src -I$G/include simd_gemm.cpp && ./a.out
//
// TREE is what `python patches/tool.py prepare TREE` wrote; with `--upto 9` it has the kernel without patch 10.

#include "ggml-cpu-impl.h"
#include "simd-gemm.h"

#include <chrono>
#include <cstdio>
#include <vector>

int main() {
    constexpr int M = 48, K = 576, N = 64, TIMES = 20000;
    std::vector<float> a(M * K, 1.0f), b(K * N, 1.0f), c(M * N, 0.0f);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < TIMES; ++i) {
        simd_gemm(c.data(), a.data(), b.data(), M, K, N);
    }
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    printf("%.1f\n", 2.0 * M * K * N * TIMES / took / 1e9);
}
