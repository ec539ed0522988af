"""The reports of `selfextend bench`: its figures as ratios to the plain model, in the tables and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner
from selfextend_cli.bench import command, promises_table, table

from selfextend_local.evaluation.speed import PROMISES, Bench, Depth, Ratios, Report, Row, Step, Workload, boundary_steps, measure

pytestmark = pytest.mark.process

RULER_MODEL = Path(__file__).parents[1] / "data" / "ruler.gguf"
WORK = Workload(n_tokens=4096, group_sizes=(1, 4), window=512, step=512, passes=1)
REPORT = Report(
    model="m",
    kv_type="f16",
    n_ctx=4608,
    devices=("CPU",),
    workload=WORK,
    start_s=(0.9, 0.3),
    memory_mib=(200.0, 210.0),
    depths=(
        Depth(1, 2048, 1000.0, 1000.0, 50.0),
        Depth(1, 4096, 600.0, 800.0, 40.0),
        Depth(4, 2048, 900.0, 900.0, 50.0),
        Depth(4, 4096, 540.0, 720.0, 38.0),
    ),
    steps=(Step(4, 5.0, 10.0),),
    plain_start_s=0.25,
)


def test_every_figure_is_a_ratio_to_the_plain_model() -> None:
    ratios = Ratios.of(REPORT)
    assert ratios.prefill == {(4, 2048): 0.9, (4, 4096): 0.9}
    assert ratios.decode == {(4, 2048): 1.0, (4, 4096): 0.95}
    assert ratios.step_in_decode == {4: pytest.approx(0.2)}  # 5 ms of a token of 25 ms
    assert ratios.steps_in_prefill == {4: pytest.approx(6 * 10.0 / 5120.0)}  # six steps of 10 ms in 4,096 tokens at 800 a second
    assert ratios.start == pytest.approx(1.2)
    assert ratios.memory == pytest.approx(1.05)
    assert ratios.as_json()["speeds"][1] == {"n": 4, "depth": 4096, "prefill": 0.9, "decode": 0.95}


def test_the_table_says_them_all() -> None:
    text = table(REPORT)
    assert "| 4,096 | 800 | 0.900 | 40.0 | 0.950 |" in text
    assert "5.00 ms in a decode, 0.20 of a token's time; 10.00 ms in the prefill, 1.2% of its time." in text
    assert "0.90 s the first time, warm 0.30 s, 1.20 times the plain library's. Peak memory: 210 MiB, 1.050 times" in text


def test_a_promise_that_is_missed_says_so() -> None:
    rows = [Row("speed", 0.9, 0.97, True, "9 against 10"), Row("memory", 1.0, 1.05, False, "5 MiB")]
    text = promises_table(rows)
    assert "| speed | 0.9 (9 against 10) | ≥ 0.97 | MISSED |" in text
    assert "| memory | 1 (5 MiB) | ≤ 1.05 | ok |" in text


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promises_are_measured(promise: Callable[[Bench], Iterable[Row]], fixture_model: Path) -> None:
    """That each has its figures; how good they are is the matter of a quiet machine."""
    model = RULER_MODEL if promise is boundary_steps else fixture_model  # a context of 32,768 is too long for a window of 512
    rows = list(promise(Bench(model, 1024)))
    assert rows
    assert all(math.isfinite(row.value) for row in rows)


def test_a_depth_report_is_measured(fixture_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    report = measure(Bench(fixture_model, 1024), Workload(1024, (1, 4), 64, 64, 1), said.append)
    assert [(row.n, row.depth) for row in report.depths] == [(1, 1024), (4, 1024)]
    assert "| 1,024 |" in table(report)
    assert len(said) == 3
    assert capsys.readouterr().out == ""


def test_flags_that_go_together() -> None:
    refused = CliRunner().invoke(command, ["--plain-library", "."])
    assert refused.exit_code == 2
    assert "needs --limits" in refused.output
