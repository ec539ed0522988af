"""Answers that go round in circles: fifty questions over three documents, asked as the chat asks, with and without a remedy.

    python docs/results/loops.py MODEL.gguf sherlock-holmes.txt pride-and-prejudice.pdf [--settings none,detector,ours:3,llama.cpp:2:1]
        [--fresh]

A setting: nothing; the detector alone; DRY of engine/repeats.py (its strength and the words that are allowed) with the detector; or
llama.cpp's DRY (its multiplier and the tokens that are allowed), which the package doesn't take.
The documents: the first story of *The Adventures of Sherlock Holmes* (Project Gutenberg 1661), the first pages of *Pride and
Prejudice* (1342), and the chapter on format strings of the Python that runs this (PSF License). None is in this repository.
With --fresh 21 others, on which nothing was chosen: the second story, the next pages, and the chapter on the debugger.
One line of JSON for each setting: the share of answers in which a phrase of three or more words is said four times, the share
that the detector ends, the mean f1, the share that names the right answer, the share of numbers of two digits or more that stand in
the document, and tokens an answer.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import pydoc_data.topics
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
from sherlock_qa import stories

from selfextend_local.chat.prompt import SYSTEM_DOCUMENT
from selfextend_local.documents import load_document
from selfextend_local.engine import repeats
from selfextend_local.engine.llama import SelfExtendLlama
from selfextend_local.evaluation.scores import best, f1
from selfextend_local.generation.loops import loop_at_end
from selfextend_local.generation.prompts import ModelVocabulary, Prompts

PAGES = 12

SHERLOCK = (
    ("Who is the woman?", "Irene Adler"),
    ("Who visits Holmes with a mask?", "the King of Bohemia"),
    ("What does the King want back?", "a photograph"),
    ("Who tells the story?", "Watson"),
    ("Where does Irene Adler live?", "Briony Lodge"),
    ("Whom did Irene Adler marry?", "Godfrey Norton"),
    ("What did Watson throw into the room?", "a smoke-rocket"),
    ("Where was the photograph hidden?", "behind a sliding panel"),
    ("As what did Holmes disguise himself first?", "a groom"),
    ("As what did Holmes disguise himself the second time?", "a clergyman"),
    ("What did Holmes ask the King for at the end?", "Irene Adler's photograph"),
    ("In which church was the wedding?", "St. Monica"),
    ("Whom is the King going to marry?", "Clotilde Lothman von Saxe-Meningen"),
    ("What does Holmes call Irene Adler?", "the woman"),
    ("What is the story about?", "Holmes tries to get a photograph from Irene Adler for the King"),
    ("How did the story end?", "Irene Adler left with the photograph"),
    ("Describe the King's clothes.", "a deep blue cloak and a mask"),
)
PRIDE = (
    ("What is the family's name?", "Bennet"),
    ("Who has taken Netherfield Park?", "Mr. Bingley"),
    ("How many daughters are there?", "five"),
    ("Who is the eldest daughter?", "Jane"),
    ("Who came to the ball with Bingley?", "Mr. Darcy"),
    ("What does Mrs. Bennet want?", "her daughters married"),
    ("Whom did Darcy call tolerable?", "Elizabeth"),
    ("Who is Mrs. Bennet's neighbour?", "Mrs. Long"),
    ("Who are Bingley's sisters?", "Caroline and Mrs. Hurst"),
    ("Who is Charlotte Lucas?", "Elizabeth's friend"),
    ("How much does Bingley have a year?", "four or five thousand"),
    ("Which daughter plays the piano?", "Mary"),
    ("Where do the Bennets live?", "Longbourn"),
    ("What is Sir William Lucas's house called?", "Lucas Lodge"),
    ("Who is the story about?", "the Bennet family"),
    ("What happens in these pages?", "Bingley comes to Netherfield and dances with Jane"),
    ("Why does Elizabeth dislike Darcy?", "he did not dance with her"),
)
PYTHON = (
    ("What encloses a replacement field?", "curly braces"),
    ("How do you write a literal brace?", "double it"),
    ("Which conversion flag calls repr?", "!r"),
    ("Which conversion flag calls str?", "!s"),
    ("Which conversion flag calls ascii?", "!a"),
    ("What does the option < do?", "left-aligned"),
    ("What does the option ^ do?", "centered"),
    ("What does the sign + mean?", "a sign for positive and negative numbers"),
    ("What does the comma option do?", "thousands separator"),
    ("What does the type b print?", "binary"),
    ("What does the type x print?", "hex"),
    ("What does the type % do?", "percentage"),
    ("What does the type e print?", "scientific notation"),
    ("What is the default precision of f?", "6"),
    ("What is this chapter about?", "format strings"),
    ("How do you print a number as a percentage?", "with the type %"),
)
LEAGUE = (
    ("Who visits Holmes about the League?", "Jabez Wilson"),
    ("What is the colour of Mr. Wilson's hair?", "red"),
    ("What was Mr. Wilson paid to copy?", "the Encyclopaedia Britannica"),
    ("How much was Mr. Wilson paid a week?", "four pounds"),
    ("Who is Mr. Wilson's assistant?", "Vincent Spaulding"),
    ("What did the thieves want to steal?", "French gold"),
    ("What is the assistant's real name?", "John Clay"),
)
NETHERFIELD = (
    ("Who falls ill at Netherfield?", "Jane"),
    ("How did Elizabeth get to Netherfield?", "she walked"),
    ("Who is Elizabeth's friend?", "Charlotte Lucas"),
    ("Where are the officers?", "Meryton"),
    ("What does Darcy admire in Elizabeth?", "her eyes"),
    ("What is Mr. Darcy's house called?", "Pemberley"),
    ("Which sisters talk of officers?", "Catherine and Lydia"),
)
DEBUGGER = (
    ("What is the module called?", "pdb"),
    ("Which command sets a breakpoint?", "break"),
    ("Which command shows the stack?", "where"),
    ("Which command leaves the debugger?", "quit"),
    ("Which command goes on with the program?", "continue"),
    ("Which function enters the debugger after an exception?", "post_mortem"),
    ("What is this chapter about?", "the Python debugger"),
)


def documents(sherlock: str, pride: str, *, fresh: bool = False) -> Iterator[tuple[str, str, tuple[tuple[str, str], ...]]]:
    pages = load_document(pride).pages
    if fresh:
        yield "The Red-Headed League", stories(Path(sherlock).read_text(encoding="utf-8"))[1], LEAGUE
        yield "Pride and Prejudice, continued", "\n\n".join(page.text for page in pages[PAGES : 2 * PAGES]), NETHERFIELD
        yield "The debugger", pydoc_data.topics.topics["debugger"], DEBUGGER
        return
    yield "A Scandal in Bohemia", stories(Path(sherlock).read_text(encoding="utf-8"))[0], SHERLOCK
    yield "Pride and Prejudice", "\n\n".join(page.text for page in pages[:PAGES]), PRIDE
    yield "Format strings", pydoc_data.topics.topics["formatstrings"], PYTHON


def repeats_itself(answer: str, times: int = 4) -> bool:
    """Whether three words that follow each other are said so often; longer phrases hold such."""
    words = re.findall(r"\w+", answer.lower())
    return max(Counter(zip(words, words[1:], words[2:], strict=False)).values(), default=0) >= times


class Setting:
    """One of --settings."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind, *sizes = text.split(":")
        self.strength, self.allowed = float(sizes[0]) if sizes else 0.0, int(sizes[1]) if len(sizes) > 1 else repeats.ALLOWED


class Asked(SelfExtendLlama):
    """A model that takes llama.cpp's sampler, too."""

    setting = Setting("none")

    def _init_sampler(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._init_sampler(*args, **kwargs)
        if self.setting.kind == "llama.cpp":
            chain, vocabulary = made.sampler, llama_cpp.llama_model_get_vocab(self.model)
            others = [llama_cpp.llama_sampler_chain_remove(chain, 0) for _ in range(llama_cpp.llama_sampler_chain_n(chain))]
            dry = llama_cpp.llama_sampler_init_dry(
                vocabulary, self.setting.strength, 1.75, self.setting.allowed, 4096, (ctypes.c_char_p * 0)(), 0
            )
            for sampler in (dry, *others):
                llama_cpp.llama_sampler_chain_add(chain, sampler)
        return made


def answer(llm: Asked, prompt: list[int], stops: frozenset[int], setting: Setting, most: int) -> tuple[list[int], bool]:
    """The tokens of an answer, and whether the detector ended it."""
    llm.setting = setting
    repeats.ALLOWED = setting.allowed
    said: list[int] = []
    for token in llm.generate(prompt, temp=0.0, dry=setting.strength if setting.kind == "ours" else 0.0):
        if token in stops or llm.ends_answers(token) or len(said) >= most:
            break
        said.append(token)
        if setting.kind != "none" and loop_at_end(said):
            return said, True
    return said, False


def numbers(text: str) -> list[str]:
    return re.findall(r"\d{2,}", text.replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("sherlock")
    parser.add_argument("pride")
    parser.add_argument("--settings", default="none,detector,ours:3")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--fresh", action="store_true", help="ask the questions on which nothing was chosen")
    parser.add_argument("--questions", type=int, default=17, help="of each document, at most")
    parser.add_argument("--characters", type=int, default=10**6, help="of each document, at most")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--answers", help="keep the answers in this file; what is in it isn't asked again")
    args = parser.parse_args()
    llm = Asked(args.model, need_tokens=16_000, n_threads=args.threads, n_gpu_layers=args.gpu_layers)
    prompts = Prompts(ModelVocabulary(llm))
    settings = [Setting(text) for text in args.settings.split(",")]
    known = {}
    if args.answers and Path(args.answers).exists():
        lines = [json.loads(line) for line in Path(args.answers).read_text(encoding="utf-8").splitlines()]
        known = {(line["question"], line["setting"]): line for line in lines}
    rows: dict[str, list[dict[str, float]]] = {setting.text: [] for setting in settings}
    for title, text, asked in documents(args.sherlock, args.pride, fresh=args.fresh):
        there = set(numbers(text))
        for question, right in asked[: args.questions]:
            user = f"Document: {title}\n\n{text[: args.characters]}\n\n{question}"
            tokens = prompts.tokens([prompts.message("system", SYSTEM_DOCUMENT), prompts.message("user", user)])
            for setting in settings:
                line = known.get((question, setting.text))
                if line is None:
                    llm.prefill(tokens[:-1])  # for all settings the last token is evaluated alone
                    said, ended = answer(llm, tokens, prompts.stop_tokens, setting, args.max_tokens)
                    text_said = llm.detokenize(said).decode("utf-8", "replace").strip()
                    line = {"document": title, "question": question, "setting": setting.text, "how": llm.group_attention.label,
                            "ended": ended, "tokens": len(said), "answer": text_said}  # fmt: skip
                    if args.answers:
                        with Path(args.answers).open("a", encoding="utf-8") as file:
                            file.write(json.dumps(line, ensure_ascii=False) + "\n")
                answered = line["answer"]
                found = numbers(answered)
                rows[setting.text].append(
                    {"said four times": repeats_itself(answered), "eight times": repeats_itself(answered, 8),
                     "detector": line["ended"], "f1": best(f1, answered, [right]),
                     "right answer named": right.lower() in answered.lower(), "tokens": line["tokens"],
                     "numbers": len(found), "not in the document": sum(n not in there for n in found)}
                )  # fmt: skip
            print(f"{title}: {question}", file=sys.stderr)
    for text, held in rows.items():
        if held:
            mean = {name: round(sum(row[name] for row in held) / len(held), 4) for name in held[0]}
            print(json.dumps({"setting": text, "questions": len(held), **mean}))


if __name__ == "__main__":
    main()
