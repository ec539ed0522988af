#pragma once

// How each layer of a model rotates its keys, where llama.cpp's hyper-parameters don't say it: some architectures decide in
// their graphs. A K-shift has to do what the graph did.

#include "llama.h"
#include "llama-arch.h"

struct ggml_tensor;
struct llama_cparams;
struct llama_hparams;
struct llama_model;

struct llama_rope_layer {
    llama_rope_type type;

    float freq_base;
    float freq_scale;
    float ext_factor;

    ggml_tensor * factors; // null: none
};

// note the layers without RoPE in hparams.rope_pattern. call once the hyper-parameters of the architecture are known
void llama_rope_layers_load(llm_arch arch, llama_hparams & hparams);

llama_rope_layer llama_rope_layer_get(const llama_model & model, const llama_cparams & cparams, int il);
