"""What a search of an index found, in words, as plain values, and in pictures."""

import io
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from engine.index.scenes import read_scene
from engine.index.search import Appearance
from engine.index.store import PeopleIndex
from tools.photos.drawing import BEST, FAINT, RIGHT
from tools.photos.sheets import Match, overview
from tools.photos.wording import counted
from utils.errors import UserError
from utils.files import write_atomically
from utils.match_thresholds import MATCH_RATE, POSSIBLE_RATE, MatchThresholds

COLORS = {"": FAINT, "match": RIGHT, "possible": BEST, "unlikely": FAINT}
OURS = b"written by tools.search"
"""Comment in the pictures that are written, by which they are known and may be replaced."""


def describe(found: Sequence[Appearance]) -> list[str]:
    """The results of a query in lines: how it ended, and each one."""
    lines = [headline(found)]
    for rank, result in enumerate(found, start=1):
        words = (f"{result.best.similarity:.3f}", result.verdict, result.best.path, times(result), result.best.camera)
        lines.append(f"  {rank}. {'  '.join(filter(None, words))}")
    return lines


def explain_thresholds(measured: MatchThresholds | None, derived: MatchThresholds | None) -> str:
    """Where a search's thresholds come from, those of the network or of the index, as a line; "" for the network's."""
    if measured:
        return ""
    if not derived:
        return "who of them is the person is not known: there are no thresholds (docs/index.md)\n"
    return (
        f"thresholds from this index: {MATCH_RATE:.1%} of its pairs of different people are as similar as "
        f"{derived.match:.3f} (match), {POSSIBLE_RATE:.0%} as {derived.possible:.3f} (possible)\n"
    )


def headline(found: Sequence[Appearance]) -> str:
    """How a search ended."""
    if not found:
        return "the index holds nobody else of this camera and time"
    if not found[0].verdict:
        return f"{counted(len(found), 'result')}, the most similar first"
    kinds = [result.verdict for result in found]
    told = [counted(kinds.count("match"), "match", "matches")] if "match" in kinds else []
    told += [f"{kinds.count('possible')} possible"] if "possible" in kinds else []
    return ", ".join(told) or f"nobody above the threshold; the best has {found[0].best.similarity:.3f}"


def times(result: Appearance) -> str:
    """When a result is seen best in a video, and from when to when; "" for a picture."""
    if result.span is None:
        return ""
    best, first, last = (clock(seconds) for seconds in (result.best.position, *result.span))
    return f"{best} ({first}-{last})" if first != last else best


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def as_plain(found: Sequence[Appearance]) -> list[dict]:
    """Results as plain values, for JSON: times in videos are seconds, dates ISO 8601 in local time."""
    rows = []
    for result in found:
        best = result.best
        when = datetime.fromtimestamp(best.time).isoformat(timespec="milliseconds")
        row = {"file": best.path, "similarity": best.similarity, "verdict": result.verdict or None}
        row |= {"box": list(best.box), "score": best.score, "camera": best.camera or None, "time": when}
        if result.span is not None:
            frames = [
                {"frame": hit.frame, "position": hit.position, "similarity": hit.similarity} for hit in result.hits
            ]
            row |= {"frame": best.frame, "position": best.position, "from": result.span[0], "to": result.span[1]}
            row |= {"frames": frames}
        rows.append(row)
    return rows


def draw_sheet(
    index: PeopleIndex, query: np.ndarray, box: Sequence[float], found: Sequence[Appearance], name: str, max_pixels: int
) -> np.ndarray:
    """A picture of a query and its results; where a file is gone or has changed, the index's small picture stands in.

    Args:
        query: uint8 H x W x 3 RGB. box: of the person, x1, y1, x2, y2. name: of the query's file.
        max_pixels: larger files are not read.

    Returns:
        uint8 H x W x 3 RGB.
    """
    crops = index.crops([result.best.id for result in found])
    matches = []
    for result in found:
        best, place = result.best, result.best.box
        scene = read_scene(best, max_pixels)
        if scene is None:
            scene = np.array(Image.open(io.BytesIO(crops[best.id])).convert("RGB"))
            place = (0, 0, scene.shape[1], scene.shape[0])
        label = " ".join(filter(None, (times(result), best.camera, Path(best.path).name)))
        matches.append(Match(scene, place, best.similarity, label, result.verdict, COLORS[result.verdict]))
    title = headline(found)
    return overview(query, box, matches, name, title[0].upper() + title[1:])


def check_replaceable(path: Path) -> None:
    """Raise UserError where a file is there that this program did not write."""
    if path.exists() and OURS not in path.read_bytes()[:65_536]:
        raise UserError(f"{path} was not written by this program: name another file, or move it")


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 H x W x 3 RGB; UserError where a picture is there that this program did not write."""
    check_replaceable(path)
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", OURS.decode())
    kind = {"format": "PNG", "pnginfo": note} if path.suffix.lower() == ".png" else {"format": "JPEG", "quality": 92}
    image = Image.fromarray(picture)
    write_atomically(path, lambda file: image.save(file, comment=OURS, **kind))
