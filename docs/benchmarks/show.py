"""Print the report of `selfextend bench --json` as its table: python docs/benchmarks/show.py FILE..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from selfextend_cli.speed import Depth, Report, Step, Workload, table


def load(file: Path) -> Report:
    values = json.loads(file.read_text(encoding="utf-8"))
    values.pop("ratios", None)  # they follow from the rest
    values["workload"] = Workload(**values["workload"] | {"group_sizes": tuple(values["workload"]["group_sizes"])})
    values["depths"] = tuple(Depth(**row) for row in values["depths"])
    values["steps"] = tuple(Step(**row) for row in values["steps"])
    return Report(**values)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}\n\n{table(load(Path(name)))}\n")
