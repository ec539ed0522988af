"""The tasks: a reader that understands the prompt gets full marks, one that doesn't gets none, and lengths are kept."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.scripted import Scripted, Words

from selfextend_local.errors import ModelUnsupported
from selfextend_local.evaluation.items import Item, TaskError
from selfextend_local.evaluation.prompting import Wording
from selfextend_local.evaluation.scores import exact_match, f1, rouge_l
from selfextend_local.evaluation.tasks import TASKS, Task, babilong, gap
from selfextend_local.evaluation.tasks.babilong import BabiLong
from selfextend_local.evaluation.tasks.copying import Copying
from selfextend_local.evaluation.tasks.facts import FORMS, Facts
from selfextend_local.evaluation.tasks.gap import LexicalGap
from selfextend_local.evaluation.tasks.passkey import Passkey, grade
from selfextend_local.evaluation.tasks.perplexity import Perplexity
from selfextend_local.evaluation.tasks.planted import Planted
from selfextend_local.evaluation.tasks.qa import QuestionAnswering
from selfextend_local.evaluation.tasks.qa_data import Case, read_cases
from selfextend_local.evaluation.tasks.ruler.samples import Material
from selfextend_local.evaluation.tasks.ruler.task import PARTS, Ruler
from selfextend_local.evaluation.texts import Text, random_words, read_text

# Each sentence has a number of its own, so that an order can be read off the passages.
STORY = Text("story", " ".join(f"On day {n} the {w} crossed the sound and came back at night." for n, w in enumerate(
    random_words(900).content.split())))


def find_key(prompt: str) -> str:
    found = re.search(r"The pass key is (\d+)\.", prompt)
    return f" {found[1]}." if found else ""


def recall_fact(prompt: str) -> str:
    for form in FORMS:
        who = re.search(re.escape(form.question).replace(r"\{\}", r"(\w+ \w+)"), prompt)
        if who:
            told = re.escape(form.told).replace(r"\{\}", re.escape(who[1])).replace(r"\{n\}", r"(\d+)")
            return f" {re.findall(told, prompt)[0]}."
    return ""


def answer_ruler(prompt: str) -> str:
    """By rules, from the last question on: what a model has to do that understands it."""
    if "most common words" in prompt:
        listed = re.findall(r"\d+\. ([a-z]+)", prompt[prompt.rindex("Below is a numbered list") : prompt.rindex("Question:")])
        return ", ".join(word for word, _ in Counter(listed).most_common(10))
    if "coded words" in prompt:
        text = prompt.split("coded words. ")[1].split("Question")[0]
        return ", ".join(word for word, _ in Counter(re.findall(r"\b[a-z]{6}\b", text)).most_common(3))
    if "variable assignment" in prompt:
        text = prompt[prompt.rindex("Memorize and track") :]
        value = re.search(r"assigned the value (\d+) in", text)[1]  # type: ignore[index]
        held = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", text))
        chain = [value]
        while len(more := [*chain, *(n for n, v in held.items() if v in chain and n not in chain)]) > len(chain):
            chain = more
        return " ".join(chain[1:])
    asked = re.search(r"special magic \w+ for (.+?) mentioned in the provided text\?", prompt)
    keys = re.split(r", and |, ", asked[1]) if asked else []
    return ", ".join(v for key in keys for v in re.findall(rf"for {re.escape(key)} is: (\S+)\.", prompt))


def follow_people(prompt: str) -> str:
    places: dict[str, list[str]] = {}
    carried: dict[str, str] = {}
    for who, what in re.findall(r"(Mary|John|Daniel|Sandra) \w+(?: up| to)? the (\w+)\.", prompt):
        if what in babilong.PLACES:
            for name in [who, *(thing for thing, carrier in carried.items() if carrier == who)]:
                places.setdefault(name, []).append(what)
        else:
            carried[what] = who
            places.setdefault(what, []).append(places[who][-1])
    before = re.search(r"Where was the (\w+) before the (\w+)\?", prompt)
    if before:
        been = places[before[1]]
        return been[len(been) - 2 - been[::-1].index(before[2])]
    return places[re.search(r"Where is (?:the )?(\w+)\?", prompt)[1]][-1]  # type: ignore[index]


def bridge_gap(prompt: str) -> str:
    told = next(told for told, question in gap.PAIRS if question in prompt)
    return " " + re.search(re.escape(told).replace(r"\{\}", r"(\w+)"), prompt)[1] + "."  # type: ignore[index]


CASES: list[tuple[Task, Callable[[str], str], str]] = [
    (Passkey(depths=4, repeats=2, digits=(5, 10, 64)), find_key, "exact"),
    (Passkey(depths=1, formats=("chat",), introduction=False), find_key, "exact"),
    (Ruler(tuple(PARTS), STORY, samples=2), answer_ruler, "score"),
    (Ruler(("niah_single_1", "vt"), None, samples=2, form="plain"), answer_ruler, "score"),
    (BabiLong(STORY, samples=4), follow_people, "score"),
    (LexicalGap(STORY), bridge_gap, "score"),
    (Facts(STORY, facts=6), recall_fact, "said"),
    (Facts(STORY, facts=3, form="plain"), recall_fact, "said"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "solve", "metric"), CASES, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("length", [900, 2500])
def test_who_understands_the_prompt_gets_full_marks(task: Task, solve: Callable[[str], str], metric: str, length: int) -> None:
    words = Words(chat=True)
    items = task.items(words, length)
    knows, guesses = Scripted(words, lambda p, s, n: solve(p)), Scripted(words, lambda p, s, n: "I don't know, 1234567")
    assert items
    for item in items:
        assert item.perform(knows)[metric] == 1.0
        assert item.perform(guesses)[metric] < 0.5
        assert item.room <= length + 200
    assert all(0.75 * length < len(prompt) <= length for prompt in knows.prompts)


@pytest.mark.slow
@pytest.mark.parametrize("task", [case[0] for case in CASES], ids=lambda task: task.name)
def test_the_same_seed_asks_the_same(task: Task) -> None:
    def inputs() -> list[tuple[str, str]]:
        words = Words(chat=True)
        return [(item.fingerprint, str(item.labels)) for item in task.items(words, 1000)]

    assert inputs() == inputs()
    assert len(set(inputs())) == len(inputs())


def test_every_kind_of_task_is_covered_here() -> None:
    assert set(TASKS) == {task.name for task, _, _ in CASES} | {"ppl", "copy", "qa", "planted"}


def test_a_fact_is_asked_as_the_chat_asks_and_its_question_begins_a_reading_of_its_own() -> None:
    words = Words(chat=True)
    items = Facts(STORY, facts=5).items(words, 2000)
    starts = []
    for item in items:
        text = words.text(item.prompt)  # type: ignore[attr-defined]
        starts.append(item.question_at)  # type: ignore[attr-defined]
        document, question = words.text(item.prompt[: starts[-1]]), words.text(item.prompt[starts[-1] :])  # type: ignore[attr-defined]
        assert text.startswith("<|system|>Answer the question from the document.<|end|><|user|>Document: story")
        assert document.endswith(" ") or document.endswith("\n\n")
        form = FORMS[item.labels["wording"]]
        assert re.match(re.escape(form.question).replace(r"\{\}", r"\w+ \w+"), question)
        assert re.search(r"<\|assistant\|>" + re.escape(form.cue).replace(r"\{\}", r"\w+ \w+") + "$", question)
    assert len(set(starts)) == 1 and {item.labels["wording"] for item in items} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("part", PARTS)
def test_the_length_of_rulers_tasks_counts_the_answer_and_places_are_spread(part: str) -> None:
    items = Ruler((part,), STORY, samples=6, form="plain").items(Words(), 1500)
    assert all(1200 < item.room <= 1500 for item in items)
    assert len({item.fingerprint for item in items}) == 6


def test_common_and_frequent_words_are_repeated_as_often_as_ruler_repeats_them() -> None:
    for length, often, seldom in ((8000, 30, 3), (3000, 6, 1)):
        sample = PARTS["cwe"](random.Random(1), 40, Material((), length))
        counts = Counter(re.findall(r"\d+\. ([a-z]+)", sample.text[sample.text.rindex("Below is") :]))
        assert sorted(counts.values()) == [seldom] * 40 + [often] * 10
        assert {word for word, n in counts.items() if n == often} == set(sample.wanted)
    sample = PARTS["fwe"](random.Random(1), 3000, Material((), 4000))
    counts = Counter(sample.text.split("coded words. ")[1].split())
    # Zeta with alpha 2: rank 1, the dots, has 1/1.645 of all, and rank k a k-squaredth of that.
    assert [counts["..."], *(counts[word] for word in sample.wanted)] == [1824, 456, 203, 114]


def test_no_word_of_a_gaps_question_stands_in_its_needle() -> None:
    for told, question in gap.PAIRS:
        assert not set(re.findall(r"\w+", told.lower())) & set(re.findall(r"\w+", question.lower()))


def test_an_answer_ends_when_its_grade_can_not_rise_and_the_question_is_read_by_itself() -> None:
    words = Words()
    (item,) = Ruler(("niah_single_1",), None, samples=1, form="plain").items(words, 600)
    prompt, at = item.prompt, item.question_at  # type: ignore[attr-defined]
    assert words.text(prompt[at:]).startswith("What is the special magic number for ")
    right = answer_ruler(words.text(prompt))
    assert item.enough(f" {right}") and not item.enough(" 7")  # type: ignore[attr-defined]


def test_an_essay_is_asked_for_and_a_short_one_refused() -> None:
    with pytest.raises(TaskError, match="name one with --text"):
        Ruler(("niah_single_2",), None).items(Words(), 900)
    with pytest.raises(TaskError, match="longer --text"):
        Ruler(("niah_single_2",), Text("t", "One. Two. Three."),).items(Words(), 900)


def prefix(a: Item, b: Item) -> int:
    return next(i for i, (x, y) in enumerate(zip(a.prompt, b.prompt, strict=False)) if x != y)  # type: ignore[attr-defined]


def test_neighbouring_pass_keys_share_the_noise_in_front_of_the_key() -> None:
    items = Passkey(depths=4).items(Words(), 2000)
    assert [item.labels["depth"] for item in items] == [0.875, 0.625, 0.375, 0.125]
    for deeper, item in zip(items, items[1:], strict=False):
        assert prefix(deeper, item) > item.labels["depth"] * 1900


def test_more_repeats_and_depths_leave_what_was_asked_as_it_is() -> None:
    words = Words()
    few = {i.fingerprint for i in Passkey(depths=3).items(words, 1000)}
    many = {i.fingerprint for i in Passkey(depths=9, repeats=2).items(words, 1000)}
    assert few < many


def test_a_pass_key_counts_only_as_a_whole_number() -> None:
    assert grade("12345", " 12345. Remember") == {"exact": 1.0, "digits": 1.0}
    assert grade("12345", "123456") == {"exact": 0.0, "digits": 1.0}
    assert grade("12345", "12399") == {"exact": 0.0, "digits": 0.6}
    assert grade("12345", "the key") == {"exact": 0.0, "digits": 0.0}


def test_perplexity_in_one_pass_and_sliding() -> None:
    words = Words()
    reader = Scripted(words, lambda p, s, n: "")
    (one,) = Perplexity(STORY).items(words, 1000)
    result = one.perform(reader)
    assert (result["nll"], result["tokens"], len(result["blocks"])) == (1.0, 1000, 63)
    (sliding,) = Perplexity(STORY, window=256).items(words, 1000)
    reader.prompts.clear()
    sliding.perform(reader)
    assert max(map(len, reader.prompts)) == 256
    # Every token but the first is measured once, in a window in which at least 128 tokens stand in front of it.
    starts = [1] + [128] * (len(reader.prompts) - 1)
    assert sum(len(p) - s for p, s in zip(reader.prompts, starts, strict=True)) == 999


def test_copying_measures_the_passage_that_was_read_against_one_that_was_not() -> None:
    words = Words()
    items = Copying(random_words(4000), depths=3).items(words, 1500)
    reader = Scripted(words, lambda p, s, n: "")
    for item in items:
        assert item.perform(reader)["gain"] == pytest.approx(0.9)
    assert [item.labels["depth"] for item in items] == [0.0, 0.5, 1.0]
    assert max(map(len, reader.prompts)) <= 1500


def test_questions_stand_at_the_shortest_length_that_holds_them(tmp_path: Path) -> None:
    lines = [{"context": "The boat is blue. " * n, "input": "Which colour?", "answers": ["blue"]} for n in (5, 60, 500)]
    path = tmp_path / "qa.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    task = QuestionAnswering(*read_cases(path), lengths=(200, 1000), form="plain")
    words = Words()
    assert [[item.labels["case"] for item in task.items(words, length)] for length in (200, 1000)] == [[0], [1]]
    assert task.too_long(words) == 1
    graded = task.items(words, 200)[0].perform(Scripted(words, lambda p, s, n: " The blue."))
    assert (graded["f1"], graded["rouge_l"], graded["exact"]) == (1.0, 0.6667, 1.0)


DOCUMENT, QUESTION = "The boat is blue.", "Which colour?"
FORMS_OF_DATA = {
    "longbench": {"context": DOCUMENT, "input": QUESTION, "answers": ["blue"]},
    "longbench 2": {"context": DOCUMENT, "question": QUESTION, "choice_A": "red", "choice_B": "blue", "answer": "B"},
    "infinitebench": {"context": DOCUMENT, "input": QUESTION, "options": ["red", "blue"], "answer": "blue"},
    "l-eval": {"input": DOCUMENT, "instructions": [QUESTION], "outputs": ["blue"]},
    "narrativeqa": {"document": {"text": DOCUMENT}, "question": {"text": QUESTION}, "answers": [{"text": "blue"}]},
    "hotpotqa": {"context": [["", [DOCUMENT]]], "question": QUESTION, "answer": "blue"},
    "musique": {"paragraphs": [{"title": "", "paragraph_text": DOCUMENT}], "question": QUESTION, "answer": "blue"},
    "quality": {"article": DOCUMENT, "questions": [{"question": QUESTION, "options": ["red", "blue"], "gold_label": 2}]},
    "squad": {"title": "Boats", "paragraphs": [{"context": DOCUMENT, "qas": [{"question": QUESTION, "answers": [{"text": "blue"}]}]}]},
}


@pytest.mark.parametrize("name", FORMS_OF_DATA)
@pytest.mark.parametrize("write", [json.dumps, lambda held: json.dumps([held], indent=1), lambda held: json.dumps({"data": [held]})])
def test_data_sets_of_other_forms_are_read(tmp_path: Path, name: str, write: Callable[[object], str]) -> None:
    path = tmp_path / "data.json"
    path.write_text(write(FORMS_OF_DATA[name]))
    ((case,), record) = read_cases(path)
    assert case.context.strip() == DOCUMENT and record.startswith("data.json ")
    if "\nA. red\nB. blue" in case.question:
        assert case.answers == ("blue", "B")
    else:
        assert case == Case(case.context, QUESTION, ("blue",))


def test_a_question_of_squad_without_an_answer_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    asked = [{"question": QUESTION, "answers": []}, {"question": QUESTION, "answers": [{"text": "blue"}, {"text": "blue"}]}]
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": DOCUMENT, "qas": asked}]}]}))
    assert read_cases(path)[0] == (Case(DOCUMENT, QUESTION, ("blue",)),)


def test_keys_and_facts_share_one_text_and_each_is_asked_once() -> None:
    words = Words(chat=True)
    task = Planted(STORY, keys=4, facts=6, likelihood=True)
    passage, *questions = task.items(words, 1500)
    texts = [words.text(item.prompt) for item in questions]
    assert [item.labels["part"] for item in questions].count("keys") == 4 and len(questions) == 10
    shared = words.text(passage.tokens)
    assert all(text.startswith(shared) for text in texts)
    assert all(item.room <= 1500 for item in questions) and max(item.room for item in questions) > 1400
    assert len({text[len(shared) :] for text in texts}) == 10
    for item, text in zip(questions, texts, strict=True):
        number = next(n for n in re.findall(r"\d+", text) if item.grade(f" {n}.")["said"])
        assert item.grade(f"{number}0")["said"] == item.grade("none")["said"] == 0.0
        assert not item.enough(f" {number}") and item.enough(f" {number}.")
        # Another number is wrong at its first wrong digit; of words the number may follow.
        assert not item.enough(number[:2]) and item.enough(f"{number[:2]}{'8' if number[2] == '7' else '7'}") and not item.enough("about")
    assert passage.start == int(0.75 * len(passage.tokens))


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "facts"), [(4, 20), (120, 120)])
def test_whatever_is_planted_has_a_name_and_a_number_of_its_own(keys: int, facts: int) -> None:
    words = Words(chat=True)
    items = Planted(STORY, keys, facts).items(words, 60 * (keys + facts))
    document, *asked = (words.text(part) for part in (items[0].prompt[: items[0].question_at], *(i.prompt[i.question_at :] for i in items)))  # type: ignore[attr-defined]
    assert len(set(asked)) == keys + facts
    numbers = [n for n in re.findall(r"\d+", document) if any(item.grade(n)["said"] for item in items)]  # type: ignore[attr-defined]
    assert len(set(numbers)) == len(numbers) == keys + facts
    told = [sum(item.grade(n)["said"] for item in items) for n in numbers]  # type: ignore[attr-defined]
    assert told == [1.0] * len(numbers)
    names = [re.search(r"number for (\S+) mentioned|([A-Z]\w+ [A-Z]\w+)", question)[0] for question in asked]  # type: ignore[index]
    assert len(set(names)) == keys + facts


def test_texts_of_two_seeds_have_other_keys_and_begin_elsewhere() -> None:
    words = Words()
    first, again, other = (Planted(STORY, 3, 3, seed=seed).items(words, 900) for seed in (0, 0, 1))
    assert [item.fingerprint for item in first] == [item.fingerprint for item in again]
    assert not {item.fingerprint for item in first} & {item.fingerprint for item in other}
    assert words.text(first[0].prompt)[40:80] != words.text(other[0].prompt)[40:80]


def test_a_short_text_is_repeated_and_says_so() -> None:
    words = Words()
    short = Planted(Text("short", " ".join(STORY.content.split()[:300])), 3, 3)
    assert short.repeats(words, 2000) and not short.repeats(words, 200)
    assert max(item.room for item in short.items(words, 2000)) > 1800
    with pytest.raises(TaskError, match="fewer of them"):
        Planted(STORY, 20, 20).items(words, 300)


@pytest.mark.parametrize("line", ["[1]", '{"context": "x"}', "no json", '{"context": "x", "input": "y", "answers": []}'])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"context": "x", "input": "y", "answers": "z"}\n' + line)
    with pytest.raises(TaskError, match="Line 2 of .*data.jsonl"):
        read_cases(path)


@pytest.mark.parametrize(
    "task",
    [
        Passkey(digits=(64,)), Ruler(("vt",), None), BabiLong(STORY), LexicalGap(STORY), Facts(STORY),
        Copying(STORY),
        Perplexity(Text("t", "a b")),
    ],
    ids=lambda task: task.name,
)
def test_what_does_not_fit_is_an_error_that_says_so(task: Task) -> None:
    with pytest.raises(TaskError, match="lengths"):
        task.items(Words(), 60)


def test_chat_is_refused_without_a_template() -> None:
    with pytest.raises(ModelUnsupported, match="--format plain"):
        Passkey(formats=("chat",)).items(Words(), 500)


def test_a_cue_stands_behind_the_header_of_the_answer() -> None:
    words = Words(chat=True)
    assert words.text(Wording(words, chat=True).prompt("Why?", "Since")) == "<|user|>Why?<|end|><|assistant|>Since"
    assert words.text(Wording(words).prompt("Why?", "Since")) == "<s>Why? Since"


def test_a_licence_around_a_text_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("Licence\n\n*** START OF THIS BOOK ***\n\nA tale of two cats.\n\n*** END OF THIS BOOK ***\n\nMore licence")
    assert read_text(path).content.strip() == "A tale of two cats."


def test_scores_are_those_of_squad_and_rouge() -> None:
    # ROUGE-L as `rouge_score.rouge_scorer.RougeScorer(["rougeL"])` of rouge-score 0.1.2 defines it: LCS over words, no stemming.
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)
    assert f1("The cat sat.", "a cat sat down") == pytest.approx(0.8)
    assert exact_match("The Heron!", "heron") == 1.0
    assert exact_match("two herons", "heron") == 0.0
