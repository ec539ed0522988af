"""Whether group attention is right on the tiny model of an architecture, without a reference for each.

Two comparisons of the library with itself. A K-shift of the whole text changes no distance, so it may change no logit: that finds keys
which aren't plain rotations of something (layers without RoPE, norms with weights after it, learned positions), and shifts that rotate
other pairs or with other frequencies than the graph did, whoever chose these. And groups must compute what the plain model computes when
the same rotations are spelt by hand: the text gets the positions of the groups, and earlier keys are moved with seq_add. That finds
whatever else an architecture reads from the positions.

Run as a program it prints a JSON line for each name given, so that an architecture that aborts takes no test run with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from .architectures import N_VOCAB, Keys, NotMade, make_model
from .driver import DecodeFailed, Engine

SCHEME = (4, 32, 16)  # n, w, r; w is not below the sliding window of the models
N_TOKENS = 96  # three steps
N_CTX = 512
NEAR = 16  # tokens that stay where they are when the others move: less than a sliding window, so that local layers see it
START = 40  # of the text that is shifted; all positions stay inside the trained window, learned ones have no more
SHIFT = 64

# In standard deviations of the logits.
BOUND = 1e-3
SHOWS = 0.02


@dataclass(frozen=True)
class Form:
    """Another way to choose the frequencies of the same architecture."""

    keys: Keys = field(default_factory=dict)
    context: Mapping[str, float] = field(default_factory=dict)
    factors: bool = False  # RoPE factors too, where the architecture has them


USUAL = "as it is"
FORMS: Mapping[str, Form] = {
    USUAL: Form(),
    "scaled by the user": Form(context={"rope_freq_base": 5000.0, "rope_scaling_type": 2, "rope_freq_scale": 0.25, "yarn_orig_ctx": 64}),
    "scaled by the file": Form(
        keys={
            "rope.freq_base": 20_000.0,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 64,
        },
        factors=True,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """`verdict` is one of: right, refused (with the status that llama_set_group_attn returned), wrong, blind (nothing that the check
    changes shows in the logits), aborted, no model. Differences are in standard deviations of the logits: of a K-shift, by form, and of
    groups against the same by hand, both nothing if it is right; of a distance that changes, and of groups against none."""

    name: str
    verdict: str
    status: int = 0
    shifts: dict[str, float] = field(default_factory=dict)
    groups: float = 0.0
    moved: float = 0.0
    grouped: float = 0.0
    detail: str = ""


def outcome(name: str) -> Outcome:
    """Of one architecture or variant, in this process."""
    shifts: dict[str, float] = {}
    groups = moved = grouped = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        for label, form in FORMS.items():
            try:
                if label == USUAL or form.keys:
                    make_model(name, path, form.keys, factors=form.factors)
            except NotMade as error:
                return Outcome(name, "no model", detail=str(error))
            try:
                with Engine(path, n_ctx=N_CTX, swa_full=True, **form.context) as engine:
                    if status := engine.set_group_attn(*SCHEME):
                        return Outcome(name, "refused", status, shifts, detail=label)
                    if label == USUAL:
                        groups, grouped, moved = _groups(engine)
                        if not max(grouped, moved) > SHOWS:
                            return Outcome(name, "blind", 0, shifts, groups, moved, grouped)
                    assert engine.set_group_attn(1, 32, 16) == 0
                    shifts[label] = _shifted(engine, SHIFT) if _can_shift(engine) else engine.self_test()
            except (DecodeFailed, RuntimeError) as error:
                return Outcome(name, "aborted", 0, shifts, groups, moved, grouped, f"{label}: {error}")
    right = max(groups, *shifts.values()) < BOUND
    return Outcome(name, "right" if right else "wrong", 0, shifts, groups, moved, grouped)


TEXT = [int(token) for token in np.random.default_rng(3).integers(3, N_VOCAB, N_TOKENS)]


def _logits(engine: Engine, tokens: Sequence[int], pos0: int | None = None) -> np.ndarray:
    """Without Chameleon's image tokens, which are never sampled."""
    logits = engine.decode(tokens, pos0=pos0)
    return logits[:, logits.min(axis=0) > -1e30]


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(got - expected).max() / max(expected.std(), 1e-9))


def _groups(engine: Engine) -> tuple[float, float, float]:
    """Differences of groups from the same by hand, of groups from none, and of a text whose first half is farther away from itself."""
    grouped = _logits(engine, TEXT)
    assert engine.set_group_attn(1, 32, 16) == 0
    engine.clear()
    plain = _logits(engine, TEXT)
    if not _can_shift(engine):
        return 0.0, _difference(grouped, plain), 0.0
    moved = _shifted(engine, -7, START + N_TOKENS - NEAR)
    return _difference(grouped, _by_hand(engine)), _difference(grouped, plain), moved


def _can_shift(engine: Engine) -> bool:
    """M-RoPE's keys can't be moved by hand: there the library's own self-test moves them."""
    return engine.seq_add(0, 0, 1, 0)


def _shifted(engine: Engine, delta: int, end: int = -1) -> float:
    """How far the last logits move if the keys before `end`, all by default, are shifted by `delta`, and the last token with the others."""
    last = []
    for shift in (0, delta):
        engine.clear()
        _logits(engine, TEXT[:-1], pos0=START)
        if not engine.seq_add(0, -1, end, shift):
            raise RuntimeError("the memory can't be shifted")
        last.append(_logits(engine, TEXT[-1:]))
    return _difference(last[1], last[0])


def _by_hand(engine: Engine) -> np.ndarray:
    """The logits of the plain model if text and earlier keys get the positions of the groups."""
    n, w, r = SCHEME
    engine.clear()
    parts = [_logits(engine, TEXT[: w + r], pos0=0)]
    for border in range(r, N_TOKENS - w, r):
        first = (border - r) // n  # where the last r tokens before the border are now
        for key in range(r):
            engine.seq_add(0, first + key, first + key + 1, key // n - key)
        engine.seq_add(0, first + r, -1, r // n - r)
        parts.append(_logits(engine, TEXT[w + border : w + border + r]))
    return np.concatenate(parts)


def outcomes(names: Sequence[str]) -> Iterator[Outcome]:
    """In a child process, and another one after each that aborts."""
    waiting = list(names)
    while waiting:
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, *waiting],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        said, complaint = child.communicate()
        for line in said.splitlines():
            yield Outcome(**json.loads(line))
            waiting.pop(0)
        if waiting:
            last_words = (complaint.strip().splitlines() or [""])[-1]
            yield Outcome(waiting.pop(0), "aborted", detail=f"exit code {child.returncode}: {last_words}")


def main(names: Sequence[str]) -> None:
    for name in names:
        print(json.dumps(asdict(outcome(name))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
