// CPU time of single operations, in ms: the least and the median of all rounds. Turns are the caller's: run the libraries alternately.
//
//     I=TREE/vendor/llama.cpp/ggml/include; g++ -O2 -I$I cpu_ops.cpp -LDIR -lggml-cpu -lggml-base -o cpu_ops
//     LD_LIBRARY_PATH=DIR ./cpu_ops attention f16|q8_0|none KEYS QUERIES    9 heads of 64 over 3 key heads, ten layers; none: f16, no flash attention
//     LD_LIBRARY_PATH=DIR ./cpu_ops product q4_1|q4_K|... INPUTS OUTPUTS   with 512 tokens
//
// TREE is what `python patches/tool.py prepare TREE` wrote, DIR where its library lies.

#include "ggml-cpu.h"
#include "ggml.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

static std::mt19937 rng(1);

static ggml_tensor * filled(ggml_context * ctx, ggml_type type, int64_t a, int64_t b, int64_t c = 1) {
    std::normal_distribution<float> normal;
    std::vector<float> values(a * b * c);
    for (float & x : values) { x = normal(rng); }
    ggml_tensor * t = ggml_new_tensor_3d(ctx, type, a, b, c);
    ggml_quantize_chunk(type, values.data(), t->data, 0, b * c, a, nullptr);
    return t;
}

static ggml_type type_of(const std::string & name) {
    for (int t = 0; t < GGML_TYPE_COUNT; ++t) {
        if (ggml_type_name((ggml_type) t) && name == ggml_type_name((ggml_type) t)) { return (ggml_type) t; }
    }
    return GGML_TYPE_F16; // none
}

static ggml_tensor * attention(ggml_context * ctx, const std::string & kind, ggml_tensor * mask) {
    const int64_t d = 64, heads = 9, key_heads = 3, keys = mask->ne[0];
    ggml_tensor * q = filled(ctx, GGML_TYPE_F32, d, mask->ne[1], heads);
    ggml_tensor * k = ggml_permute(ctx, filled(ctx, type_of(kind), d, key_heads, keys), 0, 2, 1, 3);
    if (kind == "none") {
        ggml_tensor * weights = ggml_soft_max_ext(ctx, ggml_mul_mat(ctx, k, q), mask, 0.125f, 0.0f);
        return ggml_cont(ctx, ggml_permute(ctx, ggml_mul_mat(ctx, filled(ctx, GGML_TYPE_F16, keys, d, key_heads), weights), 0, 2, 1, 3));
    }
    ggml_tensor * v = ggml_permute(ctx, filled(ctx, type_of(kind), d, key_heads, keys), 0, 2, 1, 3);
    return ggml_flash_attn_ext(ctx, q, k, v, mask, 0.125f, 0.0f, 0.0f);
}

int main(int argc, char ** argv) {
    if (argc != 5) { return fprintf(stderr, "usage: see the head of cpu_ops.cpp\n"), 2; }
    const bool    product = !strcmp(argv[1], "product");
    const int64_t a = atoll(argv[3]), b = atoll(argv[4]);
    const int     layers = product ? 1 : 10, rounds = 15;

    ggml_context * ctx   = ggml_init({ (size_t) 3 << 30, nullptr, false });
    ggml_cgraph  * graph = ggml_new_graph(ctx);
    if (product) {
        ggml_build_forward_expand(graph, ggml_mul_mat(ctx, filled(ctx, type_of(argv[2]), a, b), filled(ctx, GGML_TYPE_F32, a, 512)));
    } else {
        ggml_tensor * mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, a, b);
        for (int64_t q = 0; q < b; ++q) {
            for (int64_t j = 0; j < a; ++j) { ((ggml_fp16_t *) mask->data)[q * a + j] = j > a - b + q ? 0xFC00 : 0; }
        }
        for (int l = 0; l < layers; ++l) { ggml_build_forward_expand(graph, attention(ctx, argv[2], mask)); }
    }
    ggml_cplan plan = ggml_graph_plan(graph, 1, nullptr);
    std::vector<uint8_t> scratch(plan.work_size + 64);
    plan.work_data = scratch.data();

    std::vector<double> ms;
    for (int r = 0; r < rounds; ++r) {
        timespec from, to;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
        ggml_graph_compute(graph, &plan);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        ms.push_back((1e3 * (to.tv_sec - from.tv_sec) + 1e-6 * (to.tv_nsec - from.tv_nsec)) / layers);
    }
    std::sort(ms.begin(), ms.end());
    printf("%.3f %.3f", ms[0], ms[rounds / 2]);
    printf(product ? "  %.1f GFLOP/s\n" : "\n", 2e-6 * a * b * 512 / ms[0]);
}
