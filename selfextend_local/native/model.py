"""What a model file says of itself, its vocabulary and its pieces of text. Works on models with and without weights."""

from __future__ import annotations

import ctypes
import os
import re
import struct
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from selfextend_local.errors import ModelError

from .library import bindings, native_reason


def report_loading(params: Any, progress: Callable[[int, int], None]) -> Any:
    """Have llama_model_params report (percent done, 100) while the weights are loaded. Keep what is returned alive."""

    @bindings().llama_progress_callback  # type: ignore[untyped-decorator]
    def report(share: float, _: Any) -> bool:
        progress(round(100 * share), 100)
        return True

    params.progress_callback = report
    return report


def metadata(model: Any) -> dict[str, str]:
    """The scalar GGUF metadata of a model."""
    llama_cpp = bindings()
    found: dict[str, str] = {}
    for index in range(llama_cpp.llama_model_meta_count(model)):
        key = _string(llama_cpp.llama_model_meta_key_by_index, model, index)
        found[key] = _string(llama_cpp.llama_model_meta_val_str_by_index, model, index)
    return found


def _string(function: Any, model: Any, index: int) -> str:
    size = 1024
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = function(model, index, buffer, size)
        if length < size:
            return buffer.value.decode("utf-8", "replace")
        size = length + 1


def open_model_without_weights(path: Path, gpu_layers: int = -1) -> Any:
    """A model handle with vocabulary, metadata and tensor shapes, but no weights in memory, which says what it would take
    with `gpu_layers` layers on the GPU (-1 = all). Free it with `free_model`.

    Raises ModelError if the file is not a GGUF that this llama.cpp knows.
    """
    llama_cpp = bindings()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.no_alloc = True
    params.n_gpu_layers = gpu_layers
    params.use_extra_bufts = False  # weights that are repacked for the CPU would count as a device's
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    native_reason()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"{path} can't be loaded: {native_reason() or 'not a GGUF model'}. Download it again, or convert it anew.")
    return model


def try_model(path: Path) -> None:
    """Load a model with its weights, on the CPU, and evaluate one token."""
    llama_cpp = bindings()
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts = 0, False
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = 64
    context = llama_cpp.llama_init_from_model(model, options)
    if context:
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(0), 1))
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)


def try_vocabulary(model: Any) -> None:
    """Make tokens of characters of each kind, and of each byte where the vocabulary spells what it doesn't know in bytes."""
    llama_cpp = bindings()
    vocab = llama_cpp.llama_model_get_vocab(model)
    tokenize(model, "".join(map(chr, [*range(1, 0x800), 0x20AC, 0x4E2D, 0xAC00, 0xE000, 0xFFFD, 0x1F600, 0xF0000])), special=True)
    if llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM:
        tokenize(model, bytes(range(1, 256)), special=False)


def free_model(model: Any) -> None:
    bindings().llama_model_free(model)


def trained_window(model: Any) -> int:
    """The trained context window, in tokens."""
    return int(bindings().llama_model_n_ctx_train(model))


def n_layers(model: Any) -> int:
    """The repeating layers, without embeddings and output."""
    return int(bindings().llama_model_n_layer(model))


def sliding_window(model: Any) -> int:
    """The window of the sliding-window layers in tokens, 0 without such layers."""
    return int(bindings().llama_model_n_swa(model))


def tokenize(model: Any, text: str | bytes, special: bool, *, add_special: bool = False) -> list[int]:
    """Token ids of a text; with `special`, text that looks like a control token becomes one; with `add_special`, BOS and EOS are added
    as the vocabulary wants them.

    Runs of thousands of letters (or spaces, digits, marks) without a break are cut: the library splits a text with regular
    expressions that call themselves for each character, and ends the process on a run of 48,000 letters.
    """
    llama_cpp = bindings()
    vocab = llama_cpp.llama_model_get_vocab(model)
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    if len(raw) >= _LONGEST_RUN and llama_cpp.llama_vocab_type(vocab) == llama_cpp.LLAMA_VOCAB_TYPE_BPE:
        characters = raw.decode("utf-8", "surrogateescape")
        if _LONG_RUN.search(characters):
            cut = _LONG_RUN.sub(lambda run: _CUT.sub("\\g<0>\0", run[0]), characters)
            parts = [part.encode("utf-8", "surrogateescape") for part in cut.split("\0")]
            first = _tokenize(llama_cpp, vocab, parts[0], special, add_special)
            return first + [token for part in parts[1:] for token in _tokenize(llama_cpp, vocab, part, special, False)]
    return _tokenize(llama_cpp, vocab, raw, special, add_special)


_LONGEST_RUN = 2_000  # characters; the expressions take some 200 bytes of stack for each
_KINDS = (r"[^\s\d!-/:-@\[-`{-~\0]", r"\s", r"\d", r"[!-/:-@\[-`{-~]")  # letters and marks, spaces, digits, marks of ASCII
_LONG_RUN = re.compile("|".join(f"{kind}{{{_LONGEST_RUN},}}" for kind in _KINDS))
_CUT = re.compile(rf".{{{_LONGEST_RUN}}}", re.DOTALL)


def _tokenize(llama_cpp: Any, vocab: Any, raw: bytes, special: bool, add_special: bool) -> list[int]:
    room = len(raw) + 8
    tokens = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, room, add_special, special)
    if count < 0:
        tokens = (llama_cpp.llama_token * -count)()
        count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, -count, add_special, special)
    return list(tokens[:count])


def ends_answers(model: Any, token: int) -> bool:
    """Whether llama.cpp takes a token for the end of an answer, by its name or since the file says so."""
    llama_cpp = bindings()
    return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(model), token))


@cache
def grammar_compiles(rules: str) -> bool:
    """Whether llama.cpp takes a GBNF grammar, whose root is called root."""
    llama_cpp = bindings()
    sampler = llama_cpp.llama_sampler_init_grammar(None, rules.encode(), b"root")
    if sampler:
        llama_cpp.llama_sampler_free(sampler)
    return bool(sampler)


def try_grammar(rules: str, choose: Callable[[list[int]], int], most: int, words: Sequence[bytes] = ()) -> bytes:
    """Draw up to `most` bytes by a GBNF grammar, each by `choose` from those that it allows; each time the `words` are looked at too,
    as a sampler looks at all tokens. Raises ValueError if it allows none."""
    llama_cpp = bindings()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes.gguf"
        path.write_bytes(_vocabulary_of_bytes(words))
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    sampler = llama_cpp.llama_sampler_init_grammar(vocab, rules.encode(), b"root")
    size = _FIRST_BYTE + 256 + len(words)
    drawn = bytearray()
    data = (llama_cpp.llama_token_data * size)()
    for _ in range(most):
        for token in range(size):
            data[token].id, data[token].logit = token, 0.0
        candidates = llama_cpp.llama_token_data_array(data=data, size=size, selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(candidates))
        allowed = [data[i].id for i in range(candidates.size) if data[i].logit > float("-inf")]
        if not allowed:
            raise ValueError("it comes to a place where no character is allowed")
        going_on = [token for token in allowed if _FIRST_BYTE <= token < _FIRST_BYTE + 256]
        if not going_on:
            break
        token = choose(going_on)
        llama_cpp.llama_sampler_accept(sampler, token)
        drawn.append(token - _FIRST_BYTE)
    llama_cpp.llama_sampler_free(sampler)
    llama_cpp.llama_model_free(model)
    return bytes(drawn)


_FIRST_BYTE = 3


def _vocabulary_of_bytes(words: Sequence[bytes]) -> bytes:
    """A GGUF file of nothing but a vocabulary: three special tokens, then each byte, then words."""

    def text(value: str | bytes) -> bytes:
        data = value.encode() if isinstance(value, str) else value
        return struct.pack("<Q", len(data)) + data

    tokens: list[str | bytes] = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(words)]  # unknown, control, byte, normal
    count = struct.pack("<Q", len(tokens))
    entries = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("llama"),
        text("tokenizer.ggml.tokens") + struct.pack("<II", 9, 8) + count + b"".join(map(text, tokens)),
        text("tokenizer.ggml.scores") + struct.pack("<II", 9, 6) + count + struct.pack(f"<{len(tokens)}f", *[0.0] * len(tokens)),
        text("tokenizer.ggml.token_type") + struct.pack("<II", 9, 5) + count + struct.pack(f"<{len(tokens)}i", *kinds),
    ]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries)


class Pieces(dict[int, bytes]):
    """Token -> the bytes that it stands for, however many; with `special` also a control token's name, else nothing of it.
    Filled as they are asked for."""

    def __init__(self, model: Any, special: bool) -> None:
        super().__init__()
        self._vocab = bindings().llama_model_get_vocab(model)
        self._special = special

    def __missing__(self, token: int) -> bytes:
        size = 32
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = bindings().llama_token_to_piece(self._vocab, token, buffer, size, 0, self._special)
            if length >= 0:
                return self.setdefault(token, buffer.raw[:length])
            size = -length


def can_group(model: Any) -> bool:
    """Whether a model has keys with rotary positions, which group attention moves. False for recurrent models, ALiBi, learned positions."""
    llama_cpp = bindings()
    return not llama_cpp.llama_model_is_recurrent(model) and llama_cpp.llama_model_rope_type(model) != llama_cpp.LLAMA_ROPE_TYPE_NONE


def keeps_all_keys(model: Any) -> bool:
    """False for models with a recurrent part, whose past can't be cut back to an earlier token."""
    llama_cpp = bindings()
    return not (llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))


def opening_tokens(model: Any) -> list[int]:
    """What the vocabulary puts in front of a text: BOS or nothing."""
    vocab = bindings().llama_model_get_vocab(model)
    return [bindings().llama_vocab_bos(vocab)] if bindings().llama_vocab_get_add_bos(vocab) else []
