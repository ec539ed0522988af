"""Trains the ruler model's tokenizer: byte-level BPE, digits one by one, as SmolLM2's; the words of RULER's lists among its text.

    PYTHONPATH=..:../.. python tokenizer.py corpus.txt tokenizer.json
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from fixture_model.tasks import CLOSE, END, OPEN
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from selfextend_local.chat.prompt import SYSTEM_DOCUMENT, SYSTEM_PAGES
from selfextend_local.evaluation.tasks import babilong, gap
from selfextend_local.evaluation.tasks.facts import FORMS
from selfextend_local.evaluation.tasks.ruler.samples import Material
from selfextend_local.evaluation.tasks.ruler.task import PARTS
from selfextend_local.evaluation.tasks.ruler.words import all_words

N_VOCAB = 4096


def main(corpus: str, target: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB, special_tokens=[END, OPEN, CLOSE], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([Path(corpus).read_text(encoding="utf-8"), _task_texts()], trainer)
    tokenizer.save(target)


def _task_texts() -> str:
    """The words of the tasks, so often that those of the questions become one token each and those of the lists few."""
    rng = random.Random(0)
    fixed = [f"{f.told} {f.question} {f.cue}" for f in FORMS] + [f"{told} {asked} {gap.CUE}" for told, asked in gap.PAIRS]
    fixed += [babilong.INTRODUCTION, *gap.NAMES, SYSTEM_DOCUMENT, SYSTEM_PAGES, "system user assistant Document: [page 1]"]
    fixed += [" ".join(make(rng).told) for make in babilong.PARTS.values()]
    samples = [make(rng, 2, Material(("x",) * 9, 1024)) for make in PARTS.values()]
    fixed += [f"{s.question} {s.cue}" for s in samples]
    return "\n".join([*fixed * 400, " ".join(all_words()) * 12, "-".join(all_words()) * 6])


if __name__ == "__main__":
    main(*sys.argv[1:])
