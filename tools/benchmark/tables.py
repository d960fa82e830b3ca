"""Figures as tables: medians, spreads, and ratios to the first row."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from tools.benchmark.cases import Case, Figures

SPEEDS = ("images/s", "steps/s")
SPREAD = (*SPEEDS, "detection s", "search s", "CBGM s")
"""Columns that show the lowest and the highest sample too."""
LARGEST = ("peak MiB", "warm-up s")
"""Columns that show the largest sample instead of the median."""


def tables_of(cases: Sequence[Case], results: Sequence[Figures]) -> dict[str, list[dict[str, str]]]:
    """Title -> rows, all of a table with the same columns; a second table holds the milliseconds of stages."""
    tables: dict[str, list[dict[str, str]]] = defaultdict(list)
    first: dict[tuple[str, int], float] = {}
    for case, figures in zip(cases, results, strict=True):
        head, row = {case.part: case.name}, {}
        if case.part != "evaluation":
            head |= {"precision": case.precision, "batch": str(case.batch_size)}
        stages = {name: cell(name, samples) for name, samples in figures.items() if name.endswith(" ms")}
        for name in [name for name in figures if name not in stages]:
            row[name] = cell(name, figures[name])
            if name in SPEEDS:
                speed = median(figures[name])
                row["times the first"] = number(speed / first.setdefault((case.part, case.batch_size), speed))
        tables[f"{case.part}: median [lowest, highest]"].append(head | row)
        if stages:
            tables[f"{case.part}: milliseconds an image of each stage, median"].append(head | stages)
    return {title: _same_columns(rows) for title, rows in tables.items()}


def cell(name: str, samples: Sequence[float] | str) -> str:
    """A table's text for the samples of a column, or for a message."""
    if isinstance(samples, str):
        return samples
    middle = number(max(samples) if name in LARGEST else median(samples))
    return f"{middle} [{number(min(samples))}, {number(max(samples))}]" if name in SPREAD else middle


def number(value: float) -> str:
    """Three significant digits, integers from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _same_columns(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "-") for name in columns} for row in rows]
