"""Trains the fixture model's tokenizer: byte-level BPE, digits one by one, as SmolLM2's.

    python tokenizer.py corpus.txt tokenizer.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from tasks import ATTRIBUTES, CLOSE, END, INTRODUCTIONS, NOISE_LINE, NOUNS, OPEN
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from selfextend_local.chat.prompt import SYSTEM_DOCUMENT, SYSTEM_PAGES

N_VOCAB = 2048


def main(corpus: str, target: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB, special_tokens=[END, OPEN, CLOSE], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([Path(corpus).read_text(encoding="utf-8"), _task_texts()], trainer)
    tokenizer.save(target)


def _task_texts() -> str:
    """The words of the tasks, so often that most become one token."""
    facts = [f"The {a} of the {n} is 1. What is the {a}? Document: system user assistant [page 1]" for a in ATTRIBUTES for n in NOUNS]
    return "\n".join(facts + [*INTRODUCTIONS, NOISE_LINE, SYSTEM_PAGES, SYSTEM_DOCUMENT] * 400)


if __name__ == "__main__":
    main(*sys.argv[1:])
