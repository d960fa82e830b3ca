"""The plots of a report, drawn by matplotlib: as SVG that follows the colours of the page, or for print."""

import io
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.report.analysis import TOP_K, Analysis
from tools.report.errors import BACKGROUND, DUPLICATE, LOWER, MISSED, RIGHT, WRONG_PERSON

SIZE = 4.3, 2.9
"""Width and height in inches: about as wide as a phone's screen, so that text has its size there."""
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""The palette of Okabe and Ito (https://jfly.uni-koeln.de/color), which people with any colour blindness can tell."""
LINES = {"none": "-", "CBGM": "--", "companions": ":"}
MARKERS = "osD^vP"
MIN_TICK_RATIO = 1.4
"""Of two gallery sizes on a logarithmic axis, for the labels of both."""


class Palette(NamedTuple):
    """Colours of a plot: text and axes, grid, runs, and parts of a whole."""

    ink: str
    grid: str
    runs: Sequence[str]
    parts: dict[str, str]

    def run(self, place: int) -> str:
        """The colour of a run."""
        return self.runs[place % len(self.runs)]


PARTS = (RIGHT, LOWER, MISSED, WRONG_PERSON, BACKGROUND, DUPLICATE)
PRINT = Palette("#222222", "#dddddd", RUN_COLORS, dict(zip(PARTS, RUN_COLORS[2:] + RUN_COLORS[:2], strict=True)))
_VARIABLES = (
    "ink",
    "grid",
    *(f"run{place}" for place in range(len(RUN_COLORS))),
    *(part.replace(" ", "-") for part in PARTS),
)
_PLACEHOLDERS = {f"#0f{place:02x}f0": name for place, name in enumerate(_VARIABLES)}
"""Colours that matplotlib writes, to be replaced by variables of the page's style sheet."""
_NAMED = {name: color for color, name in _PLACEHOLDERS.items()}
PAGE = Palette(
    _NAMED["ink"],
    _NAMED["grid"],
    [_NAMED[f"run{place}"] for place in range(len(RUN_COLORS))],
    {part: _NAMED[part.replace(" ", "-")] for part in PARTS},
)


def style(palette: Palette) -> rc_context:
    """A context in which matplotlib draws in the style of a report."""
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), palette.ink)
    return rc_context(
        ink
        | {
            "svg.fonttype": "none",  # text stays text
            "text.parse_math": False,  # names of runs may hold $
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": palette.grid,
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "lines.linewidth": 1.8,
            "lines.markersize": 4.5,
            "pdf.fonttype": 42,
        }
    )


def svg(name: str, draw: Callable[[Axes, Palette], None], size: tuple[float, float] = SIZE) -> str:
    """A plot as an SVG element in the page's colours; `name`, unique on the page, keeps its ids apart from others."""
    with style(PAGE):
        figure = Figure(size, layout="constrained")
        draw(figure.add_subplot(), PAGE)
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return re.sub(r"#0f[0-9a-f]{2}f0", lambda match: f"var(--{_PLACEHOLDERS[match[0]]})", text)


def draw_curve(axes: Axes, palette: Palette, curves: Sequence[tuple[int, np.ndarray, np.ndarray]], ylabel: str) -> None:
    """A training curve of each run that has one: (run, steps, values)."""
    for run, steps, values in curves:
        axes.plot(steps, values, color=palette.run(run))
    axes.set(xlabel="optimiser steps", ylabel=ylabel)


def draw_precision_recall(axes: Axes, palette: Palette, analyses: Sequence[Analysis]) -> None:
    """Detection: precision over recall."""
    for place, each in enumerate(analyses):
        axes.plot(100 * each.recall, 100 * each.precision, color=palette.run(place))
    axes.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 101), ylim=(None, 100.5))


def draw_top_k(axes: Axes, palette: Palette, analyses: Sequence[Analysis]) -> None:
    """Share of queries with the person among the first k detections."""
    for place, each in enumerate(analyses):
        axes.plot(np.arange(1, TOP_K + 1), 100 * each.top_k(), color=palette.run(place))
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes.minorticks_off()
    axes.set(xlabel="k", ylabel="top-k (%)")


def draw_gallery_sizes(axes: Axes, palette: Palette, analyses: Sequence[Analysis], metric: str, label: str) -> None:
    """A score over the number of images in a gallery, without re-ranking and with CBGM (dashed)."""
    for place, each in enumerate(analyses):
        for reranking in ("none", "CBGM"):
            rows = [row for row in each.by_gallery if row["re-ranking"] == reranking]
            title = each.run.name + (" + CBGM" if reranking == "CBGM" else "")
            axes.plot(
                [row["images"] for row in rows],
                [100 * row[metric] for row in rows],
                LINES[reranking],
                color=palette.run(place),
                marker=MARKERS[place % len(MARKERS)],
                label=title,
            )
    sizes = sorted({row["images"] for each in analyses for row in each.by_gallery})
    axes.set_xscale("log")
    roomy = [next_size > MIN_TICK_RATIO * size for size, next_size in pairwise(sizes)]
    axes.set_xticks(sizes, [f"{size}" if shown else "" for size, shown in zip(sizes, [*roomy, True], strict=True)])
    axes.minorticks_off()
    axes.set(xlabel="images in the gallery", ylabel=label)


def draw_groups(axes: Axes, palette: Palette, rows_of_runs: Sequence[Sequence[dict]], value: str, ylabel: str) -> None:
    """A score of each run for each group, as bars side by side; groups without people are left out."""
    groups = [row["group"] for row in rows_of_runs[0]]
    width = 0.8 / len(rows_of_runs)
    for place, rows in enumerate(rows_of_runs):
        shown = [(number, 100 * row[value]) for number, row in enumerate(rows) if row[value] is not None]
        x = [number + (place - (len(rows_of_runs) - 1) / 2) * width for number, _ in shown]
        bars = axes.bar(x, [height for _, height in shown], 0.92 * width, color=palette.run(place))
        if len(rows_of_runs) * len(groups) <= 12:
            axes.bar_label(bars, fmt="%.0f", padding=1, fontsize=8)
    axes.set_xticks(
        range(len(groups)), [group.replace(" to ", " to\n").replace(" px and", " px\nand") for group in groups]
    )
    axes.grid(False, axis="x")
    axes.set(ylabel=ylabel, ylim=(0, 105))


def draw_similarities(axes: Axes, palette: Palette, place: int, same_person: dict) -> None:
    """Similarities of the same person (filled) and of others, in % of each, and the thresholds as lines."""
    histogram = same_person["histogram"]
    for name, filled in (("same", True), ("different", False)):
        counts = np.array(histogram[name], dtype=float)
        edges = histogram["lowest"] + histogram["width"] * np.arange(len(counts) + 1)
        share = 100 * counts / max(counts.sum(), 1)
        color = palette.run(place) if filled else palette.ink
        axes.stairs(share, edges, fill=filled, color=color, alpha=0.55 if filled else 0.9, linewidth=1.2)
    for row in same_person["thresholds"]:
        if row["threshold"] is not None:
            axes.axvline(row["threshold"], color=palette.ink, linewidth=1, linestyle="--")
    axes.set(xlabel="similarity", ylabel="pairs (% of each kind)")


def draw_parts(axes: Axes, palette: Palette, names: Sequence[str], shares: Sequence[dict[str, float]]) -> None:
    """Parts of a whole, one bar for each name: shares in % by part, the left one first."""
    for row, own in enumerate(shares):
        left = 0.0
        for part, share in own.items():
            axes.barh(row, share, left=left, color=palette.parts[part], height=0.66)
            left += share
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(xlabel="% of the appearances", xlim=(0, 100))
