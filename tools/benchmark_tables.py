"""A benchmark's results as tables: medians, spreads, and ratios to the first row."""

from collections.abc import Iterable

from tools.benchmark_cases import Result, Summary
from tools.benchmark_inference import STAGES

MISSING = "-"
FAILURE = "failure"
"""The column of reasons; left out where nothing failed."""


def tables_of(results: list[Result]) -> dict[str, list[dict[str, str]]]:
    """Title -> rows, all of a table with the same columns; parts that were not measured have no table."""
    parts = {part: [r for r in results if r.case.part == part] for part in ("inference", "training", "evaluation")}
    tables = {
        "inference: median [lowest, highest] of all rounds": _speed_rows(parts["inference"], "images/s"),
        "inference: milliseconds an image of each stage, median": [_stage_row(r) for r in parts["inference"]],
        "training: median [lowest, highest] of all rounds": _speed_rows(parts["training"], "iterations/s"),
        "evaluation: seconds, median [lowest, highest] of all rounds": _evaluation_rows(parts["evaluation"]),
    }
    return {title: _without_empty_column(rows, FAILURE) for title, rows in tables.items() if rows}


def _without_empty_column(rows: list[dict[str, str]], column: str) -> list[dict[str, str]]:
    if any(row.get(column) for row in rows):
        return rows
    return [{name: cell for name, cell in row.items() if name != column} for row in rows]


def describe(summary: Summary | None) -> str:
    """The median and, in brackets, the lowest and highest sample."""
    if summary is None:
        return MISSING
    return f"{number(summary.median)} [{number(summary.low)}, {number(summary.high)}]"


def number(value: float | None) -> str:
    """Three digits that count, whole numbers from 100 on."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def count(value: float | None) -> str:
    """A count, or the mean of some, with the digits it has."""
    return MISSING if value is None else f"{value:.9g}"


def _network_columns(result: Result) -> dict[str, str]:
    case = result.case
    variant = {"variant": case.name} if case.part == "inference" else {}
    return variant | {"precision": case.precision, "batch": str(case.batch_size)}


def _speed_rows(results: Iterable[Result], unit: str) -> list[dict[str, str]]:
    """Each result's speed, and its ratio to the first measured row of the same batch size."""
    first: dict[int, float] = {}
    rows = []
    for result in results:
        speed = None if result.error else result.samples().get(unit)
        if speed is not None:
            first.setdefault(result.case.batch_size, speed.median)
        rows.append(
            _network_columns(result)
            | {
                unit: describe(speed),
                "times the first": number(speed.median / first[result.case.batch_size]) if speed else MISSING,
                "peak MiB": number(result.fact("peak MiB")),
                "warm-up s": number(result.fact("warm-up s")),
                "cores": number(result.fact("cores", min)),
            }
            | _load_columns(result)
            | {FAILURE: result.error or ""}
        )
    return rows


def _load_columns(result: Result) -> dict[str, str]:
    if result.case.part != "inference":
        return {}
    return {name: count(result.fact(f"{name} an image")) for name in ("proposals", "people")}


def _stage_row(result: Result) -> dict[str, str]:
    stages = {} if result.error else result.stages()
    medians = {stage: stages[stage].median if stage in stages else None for stage in STAGES}
    return _network_columns(result) | {stage: number(median) for stage, median in medians.items()}


def _evaluation_rows(results: list[Result]) -> list[dict[str, str]]:
    names = list(dict.fromkeys(name for result in results for name in result.samples()))
    rows = []
    for result in results:
        samples = {} if result.error else result.samples()
        sizes = {name: count(result.fact(name)) for name in ("images", "boxes", "queries")}
        times = {name.removesuffix(" s"): describe(samples.get(name)) for name in names}
        row = {"gallery": result.case.name} | sizes | times
        rows.append(row | {"peak MiB": number(result.fact("peak MiB")), FAILURE: result.error or ""})
    return rows
