"""Writes the trained weights and the tokenizer as a GGUF file: matrices in q8_0, norms in f32, ChatML as the template.

    python to_gguf.py weights.npz tokenizer.json ../data/fixture.gguf
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np

WINDOW, N_HEAD, N_HEAD_KV, HEAD_DIM, ROPE_BASE, NORM_EPS = 512, 4, 2, 64, 10_000.0, 1e-5

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main(weights: str, tokenizer: str, target: str) -> None:
    arrays = {name: values.astype(np.float32) for name, values in np.load(weights).items()}
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_name("selfextend-local fixture")
    writer.add_description("Finds pass keys and stated facts inside 512 tokens; trained for the tests of selfextend-local")
    writer.add_license("mit")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(arrays["token_embd"].shape[1])
    writer.add_block_count(1 + max(int(n.split(".")[1]) for n in arrays if n.startswith("blk.")))
    writer.add_feed_forward_length(arrays["blk.0.ffn_up"].shape[0])
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPS)
    writer.add_vocab_size(arrays["token_embd"].shape[0])
    _add_tokenizer(writer, json.loads(Path(tokenizer).read_text(encoding="utf-8")))
    for name, values in arrays.items():
        if values.ndim == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, stored: dict) -> None:
    """A byte-level BPE that splits as SmolLM2's does: digits one by one, then GPT-2's rule."""
    ids: dict[str, int] = stored["model"]["vocab"]
    special = {token["content"] for token in stored["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(pair) for pair in stored["model"]["merges"]])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_eot_token_id(ids["<|im_end|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


if __name__ == "__main__":
    main(*sys.argv[1:])
