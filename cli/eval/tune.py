"""`selfextend tune`: find the settings of a model by trying, and keep them for the automatic choice.

Knows flags, the table and the profile. How it is found out is in selfextend_local.evaluation.tune.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.engine.plan import AUTO_KV_TYPES, Settings

from ..errors import EXIT_INTERRUPTED, boundary
from ..flags import engine
from ..flags.types import ListOf
from ..terminal import interrupts, output, progress
from .run import temperature

if TYPE_CHECKING:
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.evaluation.methods import Setup
    from selfextend_local.evaluation.tune import Trial, Tuning


@click.command("tune", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", type=click.Path(path_type=Path), metavar="FILE", help="GGUF model. Default: the embedded one.")
@click.option("--target-tokens", type=click.IntRange(1), required=True, metavar="N", help="The length that you want to read.")
@click.option("--text", metavar="FILE", help="Any document, best one like those you want to read. Default: the sample report, repeated.")
@click.option("--budget-minutes", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True, metavar="M",
              help="The more, the more settings are tried, and the narrower is the promise.")  # fmt: skip
@click.option("--kv-type", type=click.Choice(AUTO_KV_TYPES), default="f16", show_default=True)
@click.option("--ga-temperature", type=ListOf("C", temperature), default="0.1", show_default=True,
              help=f"{engine.TEMPERATURE_HELP} Each of a list is tried with the leading form; 0: none.")  # fmt: skip
@engine.threads
@engine.gpu_layers
@click.option("--dry-run", is_flag=True, help="Show what was found, keep nothing for later chats.")
@click.option("--forget", is_flag=True, help="Delete this model's profile and go back to the built-in settings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@boundary
def command(
    model: Path | None,
    target_tokens: int,
    text: str | None,
    budget_minutes: float,
    kv_type: str,
    ga_temperature: tuple[float, ...],
    threads: int | None,
    gpu_layers: Any,
    dry_run: bool,
    forget: bool,
    as_json: bool,
) -> int:
    """Find the form, the sizes and the temperature that read texts of a length best, and say what they will do.

    Keys and facts are planted in a text and asked one by one, under plain, groups, recall and temperature, YaRN beside them. The
    automatic choice stays unless another is clearly ahead; what is kept for this model file is used by auto from then on. What is
    promised is measured on fresh texts. Forms that the time doesn't do for are named; the same command goes on with them.

    \b
    Examples:
      selfextend tune --target-tokens 16384
      selfextend tune --model mistral.gguf --target-tokens 65536 --text report.pdf --budget-minutes 60 --gpu-layers -1
      selfextend tune --target-tokens 16384 --ga-temperature 0.1,0.3 --dry-run --json
      selfextend tune --target-tokens 16384 --forget

    Exit codes: 0 done, 1 an error (the time is too short, say), 2 wrong usage, 130 interrupted; run it again to go on.
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.engine.tuned import profile_path
    from selfextend_local.errors import Interrupted
    from selfextend_local.evaluation.model_reader import ModelReaders
    from selfextend_local.evaluation.results import Results
    from selfextend_local.evaluation.texts import read_text, sample_text
    from selfextend_local.evaluation.tune import tune

    from .run import subject_of

    path = model_or_default(model)
    if forget:
        return _forget(profile_path(path))
    read = read_text(text) if text else sample_text()
    with ModelPeek(path) as peek, interrupts.StopOnInterrupt() as stop:
        settings = Settings(kv_type=kv_type, threads=threads, gpu_layers=gpu_layers)
        results = Results(profile_path(path).with_suffix(".trials.jsonl"))
        try:
            with (
                ModelReaders(path, settings, should_stop=stop) as readers,
                progress.progress("Tuning", "s of the time", quiet=as_json, deepens=False) as update,
            ):
                tuning = tune(
                    subject_of(peek, kv_type, gpu_layers),
                    readers,
                    results,
                    target_tokens,
                    read,
                    budget_seconds=60 * budget_minutes,
                    temperatures=ga_temperature,
                    memory=_memory(peek, settings, target_tokens),
                    report=_say_trial,
                    progress=update,
                    should_stop=stop,
                )
        except Interrupted:
            output.say("Stopped; what was tried is kept. Run the same command again to go on.")
            return EXIT_INTERRUPTED
        kept = None if dry_run else _keep(peek, path, tuning, target_tokens)
    # What isn't kept is no choice of `auto`, and can't be asked for by name.
    check = _check(tuning, model, text, target_tokens, kv_type) if kept or tuning.automatic else None
    _show(tuning, target_tokens, kept, as_json, check)
    return 0


def _memory(peek: ModelPeek, settings: Settings, target: int) -> Callable[[Setup], int | None]:
    """Bytes of a KV cache for the target under a setup."""

    def taken(setup: Setup) -> int | None:
        ga = setup.group_attention
        form = replace(settings, ga_mode="recall", ga_recall=ga.recall) if ga.recall else replace(settings, ga_n=ga.n, ga_mode=ga.mode)
        held = target if ga.enabled else min(target, peek.info.n_ctx_train)  # of the plain model more is refused
        found = peek.plan(replace(form, ga_w=ga.w, n_ctx=held)).kv_bytes
        return None if found is None else found * target // held

    return taken


def _forget(path: Path) -> int:
    there = path.is_file()
    path.unlink(missing_ok=True)
    output.say(f"Deleted {path}." if there else "This model has no profile.")
    return 0


def _say_trial(trial: Trial) -> None:
    nats = "" if trial.nats is None else f", {trial.nats:.3f} nats a token"
    what = trial.setup.group_attention.label if trial.method.name == "selfextend" else trial.method.name
    temperature = f", c={trial.setup.temperature:g}" if trial.setup.temperature else ""
    took = trial.seconds + trial.asked_seconds
    output.say(
        f"{what}{temperature}, {trial.length:,} tokens: {sum(trial.said.values()):.0f} of {len(trial.said)} said{nats}, {took:.0f} s"
    )


def _keep(peek: ModelPeek, path: Path, tuning: Tuning, target: int) -> Path | None:
    """Keep the setting where it isn't the automatic choice anyway; then no earlier profile may stand in its way."""
    from selfextend_local.engine.tuned import Profile, profile_path, save_profile

    if tuning.automatic:
        profile_path(path).unlink(missing_ok=True)
        return None
    ga, evidence = tuning.ga, (tuning.reason, f"at {target:,} tokens: {tuning.sentence}")
    today = date.today().isoformat()
    profile = Profile(
        peek.info.name, tuning.fraction, ga.w, target, today, evidence, ga.mode, tuning.temperature, ga.recall
    )  # fmt: skip
    return save_profile(path, profile)


def _check(tuning: Tuning, model: Path | None, text: str | None, target: int, kv_type: str) -> str:
    """The command that asks of another text what was promised: as many keys and facts, or it would be another test."""
    from selfextend_local.evaluation.tasks.planted import FACTS, KEYS

    parts = [part for part, _ in tuning.candidate.trials[0].said]
    given = [f"--{name} {shlex.quote(str(value))}" for name, value in (("model", model), ("text", text)) if value is not None]
    asked = f"--lengths {target} --kv-type {kv_type} --keys {parts.count(KEYS)} --facts {parts.count(FACTS)} --methods selfextend --seed 7"
    return " ".join(("selfextend eval planted", *given, asked))


def _show(tuning: Tuning, target: int, kept: Path | None, as_json: bool, check: str | None) -> None:
    from selfextend_local.evaluation.tune import describe

    if as_json:
        ga, p, base = tuning.ga, tuning.promise, tuning.base
        found = {
            "setting": tuning.setting,
            "automatic": tuning.automatic,
            "ga_n": ga.n,
            "ga_w": ga.w,
            "ga_mode": ga.mode,
            "ga_recall": ga.recall,
            "ga_fraction": tuning.fraction,
            "ga_temperature": tuning.temperature,
            "target_tokens": target,
            "promise": {"share": p.mean, "low": p.low, "high": p.high, "asked": p.count}
            | {part: estimate.mean for part, estimate in tuning.parts.items()},
            "narrow_seconds": round(tuning.narrow_seconds),
            "base": {"share": base.mean, "tokens": tuning.base_length, "asked": base.count},
            "effective_tokens": tuning.effective,
            "at_least": tuning.beyond,
            "reason": tuning.reason,
            "check": check,
            "profile": str(kept) if kept else None,
            "tried": describe(tuning),
            "untried": list(tuning.untried),
            "untried_seconds": round(tuning.untried_seconds),
        }
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from .tables import print_tried

    print_tried(describe(tuning))
    who = "The automatic choice stays: " if tuning.automatic else "Chosen: "
    click.echo(f"{who}{tuning.setting}; {'' if tuning.automatic else 'it '}{tuning.reason}.")
    click.echo(f"Promise for texts of {target:,} tokens: {tuning.sentence}.")
    if minutes := math.ceil(tuning.narrow_seconds / 60):
        click.echo(f"Within 5 points it would be known after about {minutes} minutes more.")
    if check:
        click.echo(f"Check it on a fresh text: {check}")
    click.echo(_length(tuning))
    if tuning.untried:
        names, minutes = "; ".join(tuning.untried), max(1, math.ceil(tuning.untried_seconds / 60))
        click.echo(f"Not tried, for want of time: {names}. The same command goes on with them: about {minutes} minutes.")
    if kept:
        click.echo(f"Kept in {kept}: auto uses it for this model from now on.")
    else:
        click.echo("Nothing had to be kept." if tuning.automatic else "Nothing was kept.")


def _length(tuning: Tuning) -> str:
    """The effective length in a sentence."""
    own = f"{100 * tuning.base.mean:.0f} % at {tuning.base_length:,} tokens"
    if tuning.effective is None:
        return f"Effective length: not found; the plain model says {own}."
    at_least = "at least " if tuning.beyond else ""
    return f"Effective length: {at_least}{tuning.effective:,} tokens, where 85 % of the plain model's {own} are kept."
