"""Recall against groups, YaRN and the plain model, through the C interface alone: likelihood, pass keys, facts in prose, time by depth.

    python docs/benchmarks/recall.py MODEL.gguf TEXT.txt TASK [--scheme NAME] [--tokens N] [--threads N] [--layers N]

TASK: nll, keys, facts, depth. Prints one JSON object a line. Schemes: plain, auto (progressive groups as the package chooses them),
small (w=256, n=64 progressive), yarn, recall (w=1024, 2,048 fetched for each 64 tokens), and recall with other figures as
"recall:w=512,r=512,fetched=1024,stretch=8". What follows a > holds from the question on: "recall:fetched=4096>fetched=1024" reads
with 4,096 and answers with 1,024.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp as api
import numpy as np

NUMBERS = 24
END = 32  # tokens of a prompt that look for themselves
WORDINGS = (
    ("The code of the vault in {place} is {number}.", "What is the code of the vault in {place}?", "The code of the vault in {place} is"),
    (
        "That year {number} visitors came to the museum of {place}.",
        "How many visitors came to the museum of {place}?",
        "The number of visitors of the museum of {place} was",
    ),
    (
        "My membership number in the club of {place} is {number}, I told him.",
        "What is the membership number in the club of {place}?",
        "The membership number in the club of {place} is",
    ),
    (
        "The telephone number of the inn at {place} is {number}.",
        "What is the telephone number of the inn at {place}?",
        "The telephone number of the inn at {place} is",
    ),
    (
        "They counted {number} books in the library of {place}.",
        "How many books are in the library of {place}?",
        "The number of books in the library of {place} is",
    ),
)
PLACES = (
    "Aldbury", "Brimley", "Corston", "Dunwick", "Elmsworth", "Farley", "Gadsden", "Harwell", "Ilkton", "Jesmond", "Kelby", "Larkhill",
    "Marston", "Norwell", "Oakham", "Pelton", "Quorn", "Ripley", "Selby", "Tarrant", "Ufford", "Verwood", "Welham", "Yoxall",
)  # fmt: skip


class Level(ctypes.Structure):
    _fields_ = (("n", ctypes.c_int32), ("w", ctypes.c_int32), ("r", ctypes.c_int32))


class Reader:
    def __init__(self, path: str, scheme: str, n_ctx: int, threads: int, layers: int) -> None:
        api.llama_backend_init()
        self._quiet = api.llama_log_callback(lambda level, text, data: print(text.decode(), end="", flush=True) if level == 4 else None)
        api.llama_log_set(self._quiet, ctypes.c_void_p(0))
        mp = api.llama_model_default_params()
        mp.n_gpu_layers = layers
        self.model = api.llama_model_load_from_file(path.encode(), mp)
        cp = api.llama_context_default_params()
        cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_threads, cp.n_threads_batch = n_ctx, 512, 512, threads, threads
        cp.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.window = api.llama_model_n_ctx_train(self.model)
        if scheme == "yarn":
            cp.rope_scaling_type, cp.rope_freq_scale, cp.yarn_orig_ctx = (
                2,
                1 / max(2, 2 ** math.ceil(math.log2(n_ctx / self.window))),
                self.window,
            )
        self.ctx = api.llama_init_from_model(self.model, cp)
        self.vocab = api.llama_model_get_vocab(self.model)
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)
        self.lib = api.llama_cpp._lib
        self.n_tokens = n_ctx
        self.reading, _, asking = scheme.partition(">")
        self.asking = f"{self.reading}{',' if ':' in self.reading else ':'}{asking}" if asking else self.reading
        self.current = ""
        self.scheme(self.reading)

    def scheme(self, name: str) -> None:
        """From here on `name` holds; a recall that holds already keeps what it chose."""
        if name == self.current:
            return
        self.current, n_tokens = name, self.n_tokens
        if name.startswith("recall"):
            figures = {"w": 1024, "r": 64, "sinks": 64, "fetched": 2048, "span": 32, "stretch": 16, "each": END, "first": 16384, "keep": 32}
            for part in filter(None, name.partition(":")[2].split(",")):
                key, _, value = part.partition("=")
                assert key in figures, f"{key} is none of {', '.join(figures)}"
                figures[key] = int(value)
            status = self.lib.llama_set_recall(ctypes.c_void_p(self.ctx), (ctypes.c_int32 * 9)(*figures.values()))
        elif name in ("auto", "small"):
            from selfextend_local.positions import GroupAttention, choose

            ga = choose(n_tokens, self.window, progressive=True) if name == "auto" else GroupAttention(64, 256, 512, True)
            levels = [Level(level.n, level.w, level.r) for level in ga.levels]
            status = self.lib.llama_set_group_attn(ctypes.c_void_p(self.ctx), (Level * len(levels))(*levels), len(levels))
        else:
            status = 0
        assert status == 0, f"{name} was refused: {status}"

    def close(self) -> None:
        api.llama_free(self.ctx)
        api.llama_model_free(self.model)

    def tokens(self, text: str) -> list[int]:
        raw = text.encode()
        out = (ctypes.c_int32 * (3 * len(raw) + 8))()  # a space may become three bytes, each a token
        count = api.llama_tokenize(self.vocab, raw, len(raw), out, len(out), False, True)
        assert count >= 0
        return list(out[:count])

    def text(self, tokens: list[int]) -> str:
        pieces = b""
        for token in tokens:
            buffer = ctypes.create_string_buffer(64)
            count = api.llama_token_to_piece(self.vocab, token, buffer, 64, 0, True)
            pieces += buffer.raw[:count]
        return pieces.decode(errors="replace")

    def forget(self, first: int = 0) -> None:
        api.llama_memory_seq_rm(api.llama_get_memory(self.ctx), 0, first, -1)

    def read(self, tokens: list[int], first: int, logits: str = "last") -> np.ndarray:
        """Logits of the last token, or of all."""
        rows = []
        for start in range(0, len(tokens), 512):
            part = tokens[start : start + 512]
            batch = api.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, first + start + i, 1, logits == "all"
                batch.seq_id[i][0] = 0
            batch.logits[len(part) - 1] = 1
            assert api.llama_decode(self.ctx, batch) == 0
            api.llama_batch_free(batch)
            if logits == "all":
                rows.append(np.ctypeslib.as_array(api.llama_get_logits(self.ctx), (len(part), self.n_vocab)).copy())
        if logits == "all":
            return np.concatenate(rows)
        return np.ctypeslib.as_array(api.llama_get_logits_ith(self.ctx, -1), (self.n_vocab,)).copy()

    def say(self, logits: np.ndarray, first: int, n: int) -> str:
        said: list[int] = []
        for i in range(n):
            said.append(int(logits.argmax()))
            if i < n - 1:
                logits = self.read(said[-1:], first + i)
        return self.text(said)


def losses(logits: np.ndarray, targets: list[int]) -> np.ndarray:
    logits = logits.astype(np.float32)
    top = logits.max(axis=1)
    return np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(targets)), targets]


def nll(reader: Reader, words: list[int], n: int) -> dict[str, Any]:
    found: list[float] = []
    for start in range(0, n - 1, 512):
        part = words[start : min(start + 512, n - 1)]
        found += losses(reader.read(part, start, "all"), words[start + 1 : start + 1 + len(part)]).tolist()
    return {"nll": float(np.mean(found)), "last_eighth": float(np.mean(found[-n // 8 :])),
            "by_4k": [round(float(np.mean(found[i : i + 4096])), 4) for i in range(0, n, 4096)]}  # fmt: skip


def keys(reader: Reader, n: int, count: int, wanted: Sequence[int] = (), told: Callable[[int, bool], None] | None = None) -> dict[str, Any]:
    """`wanted`: of the depths 0 to count - 1, else all. A depth's key is the same whatever else is asked."""
    noise = reader.tokens(" The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.")
    head = reader.tokens("There is an important info hidden inside a lot of irrelevant text. Find it and memorize it.")
    tail = reader.tokens(" What is the pass key? The pass key is")
    chosen, found = random.Random(1), []
    read: list[int] = []
    for index in reversed(range(count)):  # from the deepest on: what lies before a key is read once
        key = chosen.randrange(10_000, 99_999)
        if wanted and index not in wanted:
            continue
        info = reader.tokens(f" The pass key is {key}. Remember it. {key} is the pass key.")
        room = n - len(head) - len(info) - len(tail) - 8
        before = int(room * (index + 0.5) / count)
        body = (noise * (room // len(noise) + 1))[:room]
        text = [*head, *body[:before], *info, *body[before:]]
        same = next((i for i, (a, b) in enumerate(zip(text, read, strict=False)) if a != b), min(len(text), len(read))) // 512 * 512
        reader.forget(same)
        reader.scheme(reader.reading)
        reader.read(text[same:], same)
        reader.scheme(reader.asking)
        read = text
        said = reader.say(reader.read(tail, len(text)), len(text) + len(tail), 7)
        found.append(str(key) in said)
        if told:
            told(index, found[-1])
    return {"found": sum(found), "of": len(found), "each": found}


def facts(reader: Reader, words: list[int], n: int) -> dict[str, Any]:
    chosen, rows = random.Random(2), []
    prose = reader.text(words[:n]).split(". ")
    planted = []
    for index, place in enumerate(PLACES[:NUMBERS]):
        number = chosen.randrange(1000, 99_999)
        statement, question, beginning = (part.format(place=place, number=number) for part in WORDINGS[index % len(WORDINGS)])
        planted.append((number, question, beginning))
        at = int((index + 0.5) * len(prose) / NUMBERS)
        prose[at] += f". {statement[:-1]}"
    text = reader.tokens(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n"
        + ". ".join(prose)
    )
    reader.read(text, 0)
    reader.scheme(reader.asking)
    for number, question, beginning in planted:
        asked = reader.tokens(f"\n\n{question}<|im_end|>\n<|im_start|>assistant\n{beginning}")
        answer = reader.tokens(f" {number}")
        if asked[:-END]:  # the end of a prompt looks for itself, as the package reads it
            reader.read(asked[:-END], len(text))
        first = reader.read(asked[-END:], len(text) + len(asked[:-END]))
        rest = reader.read(answer, len(text) + len(asked), "all")
        loss = losses(np.vstack([first[None], rest[:-1]]), answer)
        said = all(row.argmax() == token for row, token in zip([first, *rest[:-1]], answer, strict=True))
        rows.append((float(loss.mean()), said))
        reader.forget(len(text))
    return {
        "nats": float(np.mean([loss for loss, _ in rows])),
        "said": sum(said for _, said in rows),
        "of": len(rows),
        "tokens_read": len(text),
    }


def depth(reader: Reader, words: list[int], n: int) -> dict[str, Any]:
    """Seconds a token of prefill, by depth, and of decoding there."""
    prefill, decode = {}, {}
    at = 0
    for end in (4096, 8192, 16_384, 32_768, 65_536, 131_072):
        if end > n:
            break
        reader.read(words[at : end - 1024], at)
        at = max(at, end - 1024)
        begin = time.perf_counter()
        reader.read(words[at : at + 1024], at)
        prefill[end] = 1e3 * (time.perf_counter() - begin) / 1024
        at += 1024
        reader.read(words[at : at + 4], at)
        begin = time.perf_counter()
        for i in range(4, 20):
            reader.read(words[at + i : at + i + 1], at + i)
        decode[end] = 1e3 * (time.perf_counter() - begin) / 16
        reader.forget(at)
    return {"prefill_ms": prefill, "decode_ms": decode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("task", choices=("nll", "keys", "facts", "depth"))
    parser.add_argument("--scheme", default="recall")
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--depths", default="", help="of the depths 0 to count - 1: 3,5")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=0)
    options = parser.parse_args()
    n = options.tokens
    reader = Reader(options.model, options.scheme, n + 2048, options.threads, options.layers)
    words = reader.tokens(Path(options.text).read_text(encoding="utf-8"))
    words *= -(-(n + 2048) // max(1, len(words)))  # a text that a model of another vocabulary makes few tokens of
    begin = time.perf_counter()
    match options.task:
        case "nll":
            result = nll(reader, words, n)
        case "keys":
            wanted = [int(depth) for depth in options.depths.split(",") if depth]
            result = keys(reader, n, options.count, wanted, lambda depth, found: print(depth, found, file=sys.stderr, flush=True))
        case "facts":
            result = facts(reader, words, n)
        case _:
            result = depth(reader, words, n)
    print(
        json.dumps(
            {"task": options.task, "scheme": options.scheme, "tokens": n} | result | {"seconds": round(time.perf_counter() - begin, 1)}
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
