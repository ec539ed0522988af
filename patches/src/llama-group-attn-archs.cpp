// Which architectures group attention was tested on, and which it is refused for: those whose cached keys aren't plain
// rotations of something, so that a key can't be moved from one position to another.
//
// tests/native/test_architectures.py runs each of the tested ones and holds this table against what it ran.

#include "llama-arch.h"
#include "llama-group-attn-api.h"

#include <map>

namespace {

struct verdict {
    int32_t      code;
    const char * reason = nullptr;
};

constexpr verdict TESTED { LLAMA_GROUPS_TESTED };

constexpr verdict NORM_AFTER_ROPE { LLAMA_GROUPS_REFUSED, "its keys are normed channel by channel after they are rotated" };
constexpr verdict LEARNED         { LLAMA_GROUPS_REFUSED, "its positions are learned vectors that are added to the text" };
constexpr verdict OTHER_PAIRS     { LLAMA_GROUPS_REFUSED, "it rotates other pairs of values than llama.cpp says of it" };

const std::map<llm_arch, verdict> ARCHS = {
    { LLM_ARCH_AFMOE, TESTED },
    { LLM_ARCH_APERTUS, TESTED },
    { LLM_ARCH_ARCEE, TESTED },
    { LLM_ARCH_ARCTIC, TESTED },
    { LLM_ARCH_BAICHUAN, TESTED },
    { LLM_ARCH_BAILINGMOE, TESTED },
    { LLM_ARCH_BAILINGMOE2, TESTED },
    { LLM_ARCH_BAILINGMOE3, TESTED },
    { LLM_ARCH_BITNET, TESTED },
    { LLM_ARCH_CHAMELEON, TESTED },
    { LLM_ARCH_CHATGLM, TESTED },
    { LLM_ARCH_CODESHELL, TESTED },
    { LLM_ARCH_COGVLM, TESTED },
    { LLM_ARCH_COHERE2, TESTED },
    { LLM_ARCH_COHERE2MOE, TESTED },
    { LLM_ARCH_COMMAND_R, TESTED },
    { LLM_ARCH_DBRX, TESTED },
    { LLM_ARCH_DECI, TESTED },
    { LLM_ARCH_DEEPSEEK, TESTED },
    { LLM_ARCH_DEEPSEEK2, TESTED },
    { LLM_ARCH_DOTS1, TESTED },
    { LLM_ARCH_ERNIE4_5, TESTED },
    { LLM_ARCH_ERNIE4_5_MOE, TESTED },
    { LLM_ARCH_EXAONE, TESTED },
    { LLM_ARCH_EXAONE_MOE, TESTED },
    { LLM_ARCH_EXAONE4, TESTED },
    { LLM_ARCH_FALCON, TESTED },
    { LLM_ARCH_FALCON_H1, TESTED },
    { LLM_ARCH_GEMMA, TESTED },
    { LLM_ARCH_GEMMA2, TESTED },
    { LLM_ARCH_GEMMA3, TESTED },
    { LLM_ARCH_GEMMA3N, TESTED },
    { LLM_ARCH_GEMMA4, TESTED },
    { LLM_ARCH_GLM4, TESTED },
    { LLM_ARCH_GLM4_MOE, TESTED },
    { LLM_ARCH_OPENAI_MOE, TESTED },
    { LLM_ARCH_GPTNEOX, TESTED },
    { LLM_ARCH_GRANITE, TESTED },
    { LLM_ARCH_GRANITE_SWA, TESTED },
    { LLM_ARCH_GRANITE_HYBRID, TESTED },
    { LLM_ARCH_GRANITE_MOE, TESTED },
    { LLM_ARCH_GRANITE_SWITCH, TESTED },
    { LLM_ARCH_GROK, TESTED },
    { LLM_ARCH_GROVEMOE, TESTED },
    { LLM_ARCH_HRM_TEXT, TESTED },
    { LLM_ARCH_HY_V3, TESTED },
    { LLM_ARCH_INTERNLM2, TESTED },
    { LLM_ARCH_JAIS2, TESTED },
    { LLM_ARCH_LAGUNA, TESTED },
    { LLM_ARCH_LFM2, TESTED },
    { LLM_ARCH_LFM2MOE, TESTED },
    { LLM_ARCH_LLAMA, TESTED },
    { LLM_ARCH_LLAMA4, TESTED },
    { LLM_ARCH_MAPLE, TESTED },
    { LLM_ARCH_MELLUM, TESTED },
    { LLM_ARCH_MIMO2, TESTED },
    { LLM_ARCH_MINICPM, TESTED },
    { LLM_ARCH_MINICPM3, TESTED },
    { LLM_ARCH_MINIMAX_01, TESTED },
    { LLM_ARCH_MINIMAX_M2, TESTED },
    { LLM_ARCH_MISTRAL3, TESTED },
    { LLM_ARCH_MISTRAL4, TESTED },
    { LLM_ARCH_MUSE_GLIMMER, TESTED },
    { LLM_ARCH_NANBEIGE, TESTED },
    { LLM_ARCH_NEMOTRON, TESTED },
    { LLM_ARCH_OLMO, TESTED },
    { LLM_ARCH_OLMO2, TESTED },
    { LLM_ARCH_OLMOE, TESTED },
    { LLM_ARCH_OPENELM, TESTED },
    { LLM_ARCH_ORION, TESTED },
    { LLM_ARCH_PADDLEOCR, TESTED },
    { LLM_ARCH_PANGU_EMBED, TESTED },
    { LLM_ARCH_PHI2, TESTED },
    { LLM_ARCH_PHI3, TESTED },
    { LLM_ARCH_PHIMOE, TESTED },
    { LLM_ARCH_PLAMO, TESTED },
    { LLM_ARCH_PLAMO2, TESTED },
    { LLM_ARCH_PLAMO3, TESTED },
    { LLM_ARCH_PLM, TESTED },
    { LLM_ARCH_POCKETTTS, TESTED },
    { LLM_ARCH_QWEN, TESTED },
    { LLM_ARCH_QWEN2, TESTED },
    { LLM_ARCH_QWEN2MOE, TESTED },
    { LLM_ARCH_QWEN2VL, TESTED },
    { LLM_ARCH_QWEN3, TESTED },
    { LLM_ARCH_QWEN35, TESTED },
    { LLM_ARCH_QWEN35MOE, TESTED },
    { LLM_ARCH_QWEN3MOE, TESTED },
    { LLM_ARCH_QWEN3NEXT, TESTED },
    { LLM_ARCH_QWEN3TTS, TESTED },
    { LLM_ARCH_QWEN3VL, TESTED },
    { LLM_ARCH_QWEN3VLMOE, TESTED },
    { LLM_ARCH_SEED_OSS, TESTED },
    { LLM_ARCH_SMALLTHINKER, TESTED },
    { LLM_ARCH_SMOLLM3, TESTED },
    { LLM_ARCH_SPARK2_5, TESTED },
    { LLM_ARCH_STABLELM, TESTED },
    { LLM_ARCH_STARCODER2, TESTED },
    { LLM_ARCH_TALKIE, TESTED },
    { LLM_ARCH_XVERSE, TESTED },

    { LLM_ARCH_HUNYUAN_DENSE, NORM_AFTER_ROPE },
    { LLM_ARCH_HUNYUAN_MOE,   NORM_AFTER_ROPE },
    { LLM_ARCH_HUNYUAN_VL,    NORM_AFTER_ROPE },
    { LLM_ARCH_MAINCODER,     NORM_AFTER_ROPE },
    { LLM_ARCH_STARCODER,     LEARNED },
    { LLM_ARCH_DEEPSEEK2OCR,  OTHER_PAIRS },
};

} // namespace

int32_t llama_group_attn_arch(const char * name, const char ** reason) {
    const auto it = ARCHS.find(llm_arch_from_string(name));

    if (reason) {
        *reason = it == ARCHS.end() ? nullptr : it->second.reason;
    }

    return it == ARCHS.end() ? LLAMA_GROUPS_UNKNOWN : it->second.code;
}
