"""The page of a report, from its numbers, plots and pictures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tools.report.analysis import Analysis
from tools.report.errors import BACKGROUND, DUPLICATE, LOWER, MISSED, RIGHT, WRONG_PERSON
from tools.report.plots import (
    RUN_COLORS,
    draw_curve,
    draw_gallery_sizes,
    draw_groups,
    draw_parts,
    draw_precision_recall,
    draw_similarities,
    draw_top_k,
    svg,
)
from tools.report.ranking_lists import Query, list_titles
from tools.report.runs import compare_settings
from tools.report.training import read_curves

FOLDER = Path(__file__).parent
MAIN_CURVES = {
    "train/loss_total": "Total loss",
    "train/learning_rate": "Learning rate",
    "test/mAP": "mAP of the evaluations",
    "test/detection_ap": "Detection AP of the evaluations",
}
"""Training curves with titles; the page shows all others on request."""


def render(
    analyses: Sequence[Analysis],
    queries: Sequence[Query],
    num_images: int,
    *,
    with_figures: bool,
) -> str:
    """The page as HTML; with a link to the figures where there are some."""
    pages = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": _percent, "setting": _setting}
    scenes = {hit.scene: 0 for query in queries for own in query.lists for hit in own.hits}
    scenes = {scene: number for number, scene in enumerate(scenes)}
    return pages.get_template("page.html.j2").render(
        style=_asset("page.css"),
        script=_asset("page.js"),
        runs=[analysis.run for analysis in analyses],
        colors=len(RUN_COLORS),
        images=num_images,
        settings=compare_settings([analysis.run for analysis in analyses]),
        scores=_score_rows(analyses),
        curves=_plot_curves(analyses),
        main_curves=MAIN_CURVES,
        plots=_plots(analyses),
        errors=_error_rows(analyses),
        queries=queries,
        num_queries=len(analyses[0].rankings["none"]),
        titles=[title for title, _, _ in list_titles(analyses)],
        scenes=scenes,
        with_figures=with_figures,
        sizes=sorted({row["images"] for row in analyses[0].by_gallery}),
    )


def _asset(name: str) -> Markup:
    """A file of this package, which is part of the page as it is."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}"


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else "(empty)"


def _score_rows(analyses: Sequence[Analysis]) -> list[dict]:
    """A row for each run and re-ranking, with the run's detection scores in its first."""
    rows = []
    for place, each in enumerate(analyses):
        for reranking in each.rankings:
            detection = each.run.metrics["detection"] if reranking == "none" else None
            rows.append({"run": place, "re-ranking": reranking, "detection": detection, **each.scores(reranking)})
    return rows


def _error_rows(analyses: Sequence[Analysis]) -> list[dict]:
    return [
        {"run": place, "re-ranking": reranking, **each.errors(reranking)}
        for place, each in enumerate(analyses)
        for reranking in each.rankings
    ]


def _plots(analyses: Sequence[Analysis]) -> dict[str, Markup]:
    """All plots by name; those that have nothing to show are left out."""
    draws = {
        "precision-recall": partial(draw_precision_recall, analyses=analyses),
        "top-k": partial(draw_top_k, analyses=analyses),
    }
    if len({row["images"] for row in analyses[0].by_gallery}) > 1:
        for metric, label in (("mAP", "mAP (%)"), ("top1", "top-1 (%)")):
            draws[f"gallery-{metric}"] = partial(draw_gallery_sizes, analyses=analyses, metric=metric, label=label)
    for group in ("height", "camera"):
        rows = [getattr(each, f"by_{group}") for each in analyses]
        if len(rows[0]) > 1:
            draws[f"{group}-ap"] = partial(draw_groups, rows_of_runs=rows, value="ap", ylabel="detection AP (%)")
            draws[f"{group}-map"] = partial(draw_groups, rows_of_runs=rows, value="mAP", ylabel="search mAP (%)")
    for place, each in enumerate(analyses):
        same_person = each.run.metrics["same_person"]
        draws[f"same-{place}"] = partial(draw_similarities, place=place, same_person=same_person)
    plots = {name: svg(name, draw) for name, draw in draws.items()}
    names = [title for title, _, _ in list_titles(analyses)]
    order = [analyses[run].errors(reranking) for _, run, reranking in list_titles(analyses)]
    for name, parts in (("ends", (RIGHT, LOWER, MISSED)), ("places", (WRONG_PERSON, BACKGROUND, DUPLICATE))):
        shares = [{part: 100 * row[part] / max(row["appearances"], 1) for part in parts} for row in order]
        draw = partial(draw_parts, names=names, shares=shares)
        plots[f"errors-{name}"] = svg(f"errors-{name}", draw, size=(4.3, 0.9 + 0.3 * len(names)))
    return {name: Markup(plot) for name, plot in plots.items()}


def _plot_curves(analyses: Sequence[Analysis]) -> dict[str, Markup]:
    """The training curves by name, of the runs whose training is known of what was written twice or more."""
    curves = {place: read_curves(each.run.training) for place, each in enumerate(analyses) if each.run.training}
    plots = {}
    for number, name in enumerate(dict.fromkeys([*MAIN_CURVES, *(name for own in curves.values() for name in own)])):
        shown = [(place, *own[name]) for place, own in curves.items() if name in own and len(own[name][0]) > 1]
        if shown:
            plots[name] = Markup(svg(f"curve{number}", partial(draw_curve, curves=shown, ylabel=name)))
    return plots
