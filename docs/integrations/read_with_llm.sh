#!/bin/sh
# llm with llm-gguf: sh read_with_llm.sh MODEL TEXT [N_CTX] [LLM ...], where LLM is what starts it: llm
set -e
model=$1 text=$2 n_ctx=${3:-4096}
shift "$(($# > 3 ? 3 : $#))"
[ $# -gt 0 ] || set -- llm
"$@" gguf register-model long "$model" --n-ctx "$n_ctx"
"$@" --model gguf/long --no-log <"$text"
