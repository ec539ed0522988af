"""`selfextend tune`: find the settings of a model by trying, and keep them for the automatic choice.

Knows flags, the table and the profile. How it is found out is in selfextend_local.evaluation.tune.
"""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selfextend_local.engine.plan import AUTO_KV_TYPES, Settings

from ..errors import EXIT_ERROR, EXIT_INTERRUPTED, boundary
from ..flags import engine
from ..flags.types import ListOf
from ..terminal import interrupts, output, progress
from .run import temperature

if TYPE_CHECKING:
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.evaluation.tune import Trial, Tuning


@click.command("tune", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", type=click.Path(path_type=Path), metavar="FILE", help="GGUF model. Default: the embedded one.")
@click.option("--target-tokens", type=click.IntRange(1), required=True, metavar="N", help="The length that you want to read.")
@click.option("--budget-minutes", type=click.FloatRange(0, min_open=True), default=15.0, show_default=True, metavar="M")
@click.option("--kv-type", type=click.Choice(AUTO_KV_TYPES), default="f16", show_default=True)
@click.option("--ga-temperature", type=ListOf("C", temperature), default="0", show_default=True,
              help=f"{engine.TEMPERATURE_HELP} All of a list are tried with each setting.")  # fmt: skip
@engine.threads
@engine.gpu_layers
@click.option("--dry-run", is_flag=True, help="Show what was found, keep nothing for later chats.")
@click.option("--forget", is_flag=True, help="Delete this model's profile and go back to the built-in settings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@boundary
def command(
    model: Path | None,
    target_tokens: int,
    budget_minutes: float,
    kv_type: str,
    ga_temperature: tuple[float, ...],
    threads: int | None,
    gpu_layers: Any,
    dry_run: bool,
    forget: bool,
    as_json: bool,
) -> int:
    """Find the group size, the neighbour window and the part of the window that a model uses well.

    Tries pass keys inside the trained window, then at the target, until a setting finds all of them or the budget ends.
    The result is kept for this model file: --ga-n auto uses it from then on, and says "tuned".

    \b
    Examples:
      selfextend tune --target-tokens 16384
      selfextend tune --model mistral.gguf --target-tokens 65536 --budget-minutes 60 --gpu-layers -1
      selfextend tune --target-tokens 16384 --ga-temperature 0,0.3 --dry-run --json
      selfextend tune --target-tokens 16384 --forget

    Exit codes: 0 found, 1 nothing worked (the best is shown, and not kept), 2 wrong usage, 130 interrupted; run it again to go on.
    """
    from selfextend_local.engine.default_model import model_or_default
    from selfextend_local.engine.peek import ModelPeek
    from selfextend_local.engine.tuned import profile_path
    from selfextend_local.errors import Interrupted
    from selfextend_local.evaluation.model_reader import ModelReaders
    from selfextend_local.evaluation.results import Results
    from selfextend_local.evaluation.tune import tune
    from selfextend_local.positions import default_neighbours

    from .run import subject_of

    path = model_or_default(model)
    if forget:
        return _forget(profile_path(path))
    with ModelPeek(path) as peek, interrupts.StopOnInterrupt() as stop:
        settings = Settings(kv_type=kv_type, threads=threads, gpu_layers=gpu_layers)
        results = Results(profile_path(path).with_suffix(".trials.jsonl"))
        try:
            with ModelReaders(path, settings, should_stop=stop) as readers, progress.progress("Tuning", quiet=as_json) as update:
                tuning = tune(
                    subject_of(peek, kv_type),
                    readers,
                    results,
                    target_tokens,
                    budget_seconds=60 * budget_minutes,
                    temperatures=ga_temperature,
                    report=_say_trial,
                    progress=update,
                    should_stop=stop,
                )
        except Interrupted:
            output.say("Stopped; what was tried is kept. Run the same command again to go on.")
            return EXIT_INTERRUPTED
        kept = None if dry_run or not tuning.verified else _keep(peek, path, tuning, target_tokens)
        usual = default_neighbours(peek.info.n_ctx_train, peek.info.sliding_window)
    _show(tuning, target_tokens, kept, as_json)
    if kept and tuning.ga.enabled and tuning.ga.w < usual:
        # docs/results.md: SmolLM2 answers hardly any question with the window that finds every key.
        output.say(
            f"A window of {tuning.ga.w} is narrower than the usual {usual}. It finds keys; a small model may answer worse with it. "
            "Try your own questions (selfextend eval qa), and selfextend tune --forget if they say so."
        )
    return 0 if tuning.verified else EXIT_ERROR


def _forget(path: Path) -> int:
    there = path.is_file()
    path.unlink(missing_ok=True)
    output.say(f"Deleted {path}." if there else "This model has no profile.")
    return 0


def _say_trial(trial: Trial) -> None:
    output.say(f"{trial.stage}: {trial.setting}, {trial.length:,} tokens: {trial.found} of {trial.asked} found, {trial.seconds:.0f} s")


def _keep(peek: ModelPeek, path: Path, tuning: Tuning, target: int) -> Path:
    from selfextend_local.engine.tuned import Profile, save_profile

    evidence = [tuning.reason]
    evidence += [
        f"{t.stage}: {t.setting}, {t.length:,} tokens: {t.found} of {t.asked} found" for t in tuning.trials
    ]
    today = date.today().isoformat()
    profile = Profile(
        peek.info.name, tuning.fraction, tuning.ga.w, target, today, tuple(evidence), tuning.ga.mode, tuning.temperature
    )  # fmt: skip
    return save_profile(path, profile)


def _show(tuning: Tuning, target: int, kept: Path | None, as_json: bool) -> None:
    from selfextend_local.evaluation.tune import describe

    if as_json:
        found = {
            "ga_n": tuning.ga.n,
            "ga_w": tuning.ga.w,
            "ga_mode": tuning.ga.mode,
            "ga_fraction": tuning.fraction,
            "ga_temperature": tuning.temperature,
            "target_tokens": target,
            "verified": tuning.verified,
            "reason": tuning.reason,
            "profile": str(kept) if kept else None,
            "trials": describe(tuning.trials),
        }
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from .tables import print_trials

    print_trials(describe(tuning.trials))
    word = "works" if tuning.verified else "is the best guess, NOT seen to work"
    setting = tuning.setting if tuning.ga.enabled else "The plain model"
    click.echo(f"{setting} {word} at {target:,} tokens; the model is relied on for {tuning.fraction:.1%} of")
    click.echo(f"its window. Why: {tuning.reason}.")
    if kept:
        click.echo(f"Kept in {kept}: --ga-n auto uses it for this model from now on.")
    else:
        click.echo("Nothing was kept." + ("" if tuning.verified else " Give more --budget-minutes, or set --ga-n and --ga-w by hand."))
