"""The two figures of the paper, as PDF and PNG: scores over gallery size, and ranking lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from datasets import PersonSearchDataset
from tools.photos.sheets import crop_region
from tools.report.analysis import Analysis
from tools.report.plots import PRINT, draw_gallery_sizes, style
from tools.report.ranking_lists import list_titles
from utils.evaluation import Ranking

QUERIES, HITS = 4, 10
PAGE_WIDTH = 7.2
"""Inches of the text of a page in two columns."""
SCENE_WIDTH = 1.9
PERSON = 0.5, 0.8
GAP, TITLE = 0.03, 0.2
"""All in inches; PERSON is width and height."""
QUERY, AROUND, TRUE, FALSE = "#f0e442", "#ffffff", "#009e73", "#d55e00"
DPI = 200


def write_figures(
    folder: Path,
    analyses: Sequence[Analysis],
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
) -> None:
    """Write gallery_size and rankings, each as .pdf and .png; the first only where galleries have several sizes."""
    folder.mkdir()
    with style(PRINT):
        if len({row["images"] for row in analyses[0].by_gallery}) > 1:
            _save(gallery_size_figure(analyses), folder / "gallery_size")
        _save(ranking_figure(analyses, gallery_set, query_set), folder / "rankings")


def gallery_size_figure(analyses: Sequence[Analysis]) -> Figure:
    """mAP and top-1 over the size of the gallery, side by side."""
    figure = Figure((PAGE_WIDTH, 2.7), layout="constrained")
    for axes, metric, label in zip(figure.subplots(1, 2), ("mAP", "top1"), ("mAP (%)", "top-1 (%)"), strict=True):
        draw_gallery_sizes(axes, PRINT, analyses, metric, label)
    axes.legend(frameon=False, fontsize=8)
    return figure


def ranking_figure(
    analyses: Sequence[Analysis],
    gallery_set: PersonSearchDataset,
    query_set: PersonSearchDataset,
) -> Figure:
    """The queries for which two lists differ most: the scene with the query, and the first hits of both lists.

    The lists are those of the first two runs, or of one run without re-ranking and with CBGM.
    """
    titles = (
        list_titles(analyses)[:2] if len(analyses) > 1 else [t for t in list_titles(analyses) if t[2] != "companions"]
    )
    lists = [analyses[run].rankings[reranking] for _, run, reranking in titles]
    gain = np.array([right.ap - left.ap for left, right in zip(*lists, strict=True)])
    order = np.argsort(gain, kind="stable")
    chosen = [*order[::-1][: QUERIES // 2], *order[: QUERIES // 2]]
    height = PERSON[1] + TITLE
    figure = Figure((PAGE_WIDTH, 2 * height * len(chosen)))
    grid = figure.add_gridspec(
        2 * len(chosen), HITS + 1, width_ratios=[SCENE_WIDTH, *[PERSON[0]] * HITS], left=0, right=0.997, bottom=0,
        top=1 - TITLE / (2 * height * len(chosen)), wspace=GAP / PERSON[0], hspace=TITLE / PERSON[1],
    )  # fmt: skip
    for row, place in enumerate(chosen):
        number = lists[0][place].query
        query, around = query_set.annotations[number], analyses[0].features.context_dets[number][1:, :4]
        axes = figure.add_subplot(grid[2 * row : 2 * row + 2, 0])
        boxes = [(box, AROUND) for box in around] + [(query["boxes"][0], QUERY)]
        _show_scene(axes, query_set.read_image(query["img_path"]), boxes)
        for line, ((title, run, _), rankings) in enumerate(zip(titles, lists, strict=True)):
            axes = [figure.add_subplot(grid[2 * row + line, 1 + hit]) for hit in range(HITS)]
            axes[0].set_title(f"{title}, AP {100 * rankings[place].ap:.1f} %", fontsize=7, loc="left", pad=2)
            _show_hits(axes, analyses[run], rankings[place], gallery_set)
    return figure


def _show_scene(axes: Axes, image: np.ndarray, boxes: Sequence[tuple[np.ndarray, str]]) -> None:
    """An image with boxes (x1, y1, x2, y2) in their colours."""
    axes.imshow(image)
    for (x1, y1, x2, y2), color in boxes:
        width = 1.8 if color == QUERY else 0.7
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width))
    axes.set_axis_off()


def _show_hits(
    axes: Sequence[Axes],
    analysis: Analysis,
    ranking: Ranking,
    gallery_set: PersonSearchDataset,
) -> None:
    """The first detections, marked as true or false; places that nobody has stay empty."""
    for own in axes:
        own.set(xticks=[], yticks=[])
        own.grid(False)
        own.spines[:].set_visible(False)
    for own, detection, true in zip(axes, ranking.detections, ranking.true, strict=False):
        image = gallery_set.read_image(gallery_set.annotations[analysis.image_of[detection]]["img_path"])
        own.imshow(crop_region(image, analysis.gallery.boxes[detection], PERSON), aspect="auto")
        color = TRUE if true else FALSE
        own.spines[:].set(visible=True, edgecolor=color, linewidth=1.6)
        sign, patch = "\u2713" if true else "\u2717", {"facecolor": color, "linewidth": 0, "pad": 1}
        own.text(0.06, 0.96, sign, va="top", color="white", fontsize=6, transform=own.transAxes, bbox=patch)


def _save(figure: Figure, path: Path) -> None:
    for suffix in (".pdf", ".png"):
        figure.savefig(path.with_suffix(suffix), dpi=DPI)
