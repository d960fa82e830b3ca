"""Making a report: from runs to a folder with the page."""

import logging
from pathlib import Path

from tools.photos.output_folder import OutputFolder
from tools.report.analysis import analyse
from tools.report.figures import write_figures
from tools.report.page import render
from tools.report.pictures import Pictures
from tools.report.ranking_lists import build_queries, choose_queries
from tools.report.runs import open_runs, open_sets
from utils.files import write_text

log = logging.getLogger("report")


def write_report(words: list[str], out: Path, num_queries: int, *, single_file: bool, figures: bool) -> Path:
    """Write a report of runs, see `open_runs`, and return its page.

    Args:
        out: the folder, which replaces an earlier report.
        num_queries: rankings on the page, at most.
        single_file: embed pictures in the page.
        figures: write the figures of the paper, too.

    Raises:
        UserError: a run lacks something, or the folder holds files of others. OSError: it cannot be written.
    """
    runs = open_runs(words)
    folder = OutputFolder(out)
    try:
        gallery_set, query_set = open_sets(runs[0])
        analyses = [analyse(run, gallery_set, query_set) for run in runs]
        pictures = Pictures(gallery_set.read_image, None if single_file else folder.part / "pictures")
        places = choose_queries(analyses, num_queries)
        queries = build_queries(analyses, places, gallery_set, query_set, pictures)
        write_text(folder.part / "index.html", render(analyses, queries, len(gallery_set), with_figures=figures))
        if figures:
            write_figures(folder.part / "figures", analyses, gallery_set, query_set)
        folder.commit()
    finally:
        folder.discard()
    return out / "index.html"
