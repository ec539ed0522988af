#!/bin/sh
# The long cells of docs/results.md, on a GPU. On an H100 with SmolLM2-135M a text of 16,384 tokens takes 0.7 s, one of 32,768
# 1.2 s, and the likelihood of 32,768 tokens about 4 s. Stop it when you like.
#
#   docs/results/run_on_gpu.sh MODEL.gguf NOVEL.txt OUT_FOLDER
#
# LLAMA_CPP_LIB_PATH names the folder of a CUDA build of the patched library; PYTHON the interpreter (default python3).
# What is done is not done twice: run it again after an interruption. The most wanted cells come first.
set -eu
model=$1 text=$2 out=$3
mkdir -p "$out"

selfextend() {
    "${PYTHON:-python3}" -c "from selfextend_cli.main import main; main()" "$@"
}

tune() {
    # A folder of its own, so that what is found doesn't change the settings of the cells below.
    SELFEXTEND_PROFILES=$out/profiles selfextend tune --model "$model" --gpu-layers -1 --target-tokens "$1" --json >"$out/gpu-tune-$1.json" ||
        echo "tune: nothing worked at $1"
    echo "tune $1: $(date +%T)"
}

measure() {
    task=$1
    shift
    selfextend eval "$task" --model "$model" --gpu-layers -1 \
        --out "$out/gpu-$task.jsonl" --json "$@" >/dev/null
    echo "$task $*: $(date +%T), $(wc -l <"$out/gpu-$task.jsonl") results"
}

python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")" && pwd)
for stories in 1 2; do
    "$python" "$here/sherlock_qa.py" "$text" $stories >"$out/qa$stories.jsonl"
done

measure passkey --lengths 8k,16k,32k --methods plain,yarn,ntk,linear,upstream,selfextend --repeats 3
measure passkey --lengths 64k --methods plain,yarn,upstream,selfextend
measure ppl --text "$text" --lengths 4k,8k,16k,32k --methods plain,yarn,ntk,linear,upstream,selfextend
measure ppl --text "$text" --lengths 16k,32k --methods upstream,selfextend --ga-n 8 --ga-w 1024,2048
measure ppl --text "$text" --lengths 16k,32k --methods selfextend --kv-type q8_0,q4_0
measure qa --data "$out/qa1.jsonl" --lengths 16k --methods plain,yarn,upstream,selfextend
measure qa --data "$out/qa2.jsonl" --lengths 32k --methods plain,yarn,selfextend
measure copy --text "$text" --lengths 8k,16k,32k --methods plain,yarn,upstream,selfextend
for n in 8 16 32 64; do
    measure passkey --lengths 8k,16k,32k --methods selfextend --ga-mode progressive --ga-n $n --ga-w 256,512,1024 --repeats 3
    measure ppl --text "$text" --lengths 8k,16k,32k --methods selfextend --ga-mode progressive --ga-n $n --ga-w 256,512,1024,2048
    measure qa --data "$out/qa1.jsonl" --lengths 16k --methods selfextend --ga-mode progressive --ga-n $n --ga-w 256,512,1024,2048
done
measure passkey --lengths 32k --methods selfextend --ga-mode two-level --ga-n 16,32,64 --ga-w 256 --repeats 3
for target in 16384 32768 65536; do
    tune $target
done
