"""Search photos for one person, and write what was found: pictures and a file of results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from engine.requests import SearchRequest
from engine.searcher import ImageResult, Searcher
from tools.photos.drawing import BEST, FAINT, RIGHT, draw_detections, draw_numbered
from tools.photos.sheets import Match, overview
from tools.photos.wording import counted, headline, short_path, verdict
from utils.boxes import paired_iou
from utils.errors import UserError
from utils.files import write_atomically, write_json
from utils.images import read_photo

JPEG_QUALITY = 92
STRANGERS_BELOW = 0.99
"""Share of the people who are certainly somebody else whose similarity is below the threshold."""
MIN_STRANGERS = 20
"""People who are certainly somebody else from which the threshold is derived; with fewer it is MIN_THRESHOLD."""
MIN_THRESHOLD = 0.5
"""Lowest threshold that is derived: where the person is absent and nobody is alike, somebody would always reach it."""
SAME_IOU = 0.2
"""Intersection over union from which a box given by hand and a person found may be the same."""
TRUE_IOU = 0.3
"""Intersection over union from which a person found is the one that is really there. The metrics ask for 0.5: that the
box fits, too."""


@dataclass(frozen=True)
class GalleryRequest:
    """What to search for, where.

    Attributes:
        query: the image that shows the person.
        gallery: the images to search.
        box: x1, y1, x2, y2 in pixels of the query image as people see it; None until the person is chosen.
        truth: where known, the person's box in the gallery images that show it; None where nothing is known.
    """

    query: Path
    gallery: Sequence[Path]
    box: tuple[float, ...] | None = None
    truth: Mapping[Path, Sequence[float]] | None = None


@dataclass
class GalleryResults:
    """What a search found: plain values, written as results.json.

    Attributes:
        query: `file` and `box`.
        threshold: similarity from which a person counts as a match.
        threshold_reason: why it is that, in words.
        images: of each image searched `file`, `boxes`, `scores`, `similarities`, by falling similarity.
        ranked: the most similar person of each image: `file`, `box`, `score`, `similarity`, `match` (whether the
            similarity reaches the threshold), `right` (None where the truth is unknown), by falling similarity.
        failed: `file` and `error` of the images that could not be read.
        complete: whether all images were searched.
    """

    query: dict
    threshold: float = MIN_THRESHOLD
    threshold_reason: str = ""
    images: list[dict] = field(default_factory=list)
    ranked: list[dict] = field(default_factory=list)
    failed: list[dict] = field(default_factory=list)
    complete: bool = False


def search_gallery(searcher: Searcher, request: GalleryRequest, threshold: float | None = None) -> GalleryResults:
    """Search the gallery; after Ctrl-C the results so far, which are not `complete`.

    Args:
        threshold: similarity from which a person counts as a match; None: see `find_threshold`.

    Raises:
        ImageError: the query image cannot be read.
        UserError: its box is outside it or too small.
    """
    results = GalleryResults({"file": str(request.query), "box": list(request.box)})
    images, failed = {}, {}

    def note_failure(index: int, error: UserError) -> None:
        failed[index] = {"file": str(request.gallery[index]), "error": str(error)}

    try:
        for index, found, similarities in searcher.compare(request.query, request.box, request.gallery, note_failure):
            images[index] = _image(request.gallery[index], found, similarities)
        results.complete = True
    except KeyboardInterrupt:
        pass  # what was found is worth keeping; `complete` tells
    results.images = [images[index] for index in sorted(images)]
    results.failed = [failed[index] for index in sorted(failed)]
    found = find_threshold(results.images) if threshold is None else (threshold, "as given")
    results.threshold, results.threshold_reason = found
    results.ranked = rank_images(results.images, results.threshold, request.truth)
    return results


def find_threshold(images: Iterable[dict]) -> tuple[float, str]:
    """The similarity that hardly any stranger reaches, at least MIN_THRESHOLD, and in words why it is that.

    An image shows the person asked for once at most, so all but its most similar person are certainly somebody else.
    """
    strangers = [similarity for image in images for similarity in image["similarities"][1:]]
    if len(strangers) < MIN_STRANGERS:
        return MIN_THRESHOLD, "too few people to derive it from"
    below = float(np.quantile(strangers, STRANGERS_BELOW))
    reason = (
        f"{STRANGERS_BELOW:.0%} of the {len(strangers)} people who are certainly somebody else are below {below:.3f}"
    )
    return max(below, MIN_THRESHOLD), reason + ("; it is never lower" if below < MIN_THRESHOLD else "")


def rank_images(images: Iterable[dict], threshold: float, truth: Mapping[Path, Sequence[float]] | None) -> list[dict]:
    """The most similar person of each image that shows people, see `GalleryResults`."""
    ranked = []
    for image in images:
        if image["boxes"]:
            box, score, similarity = (image[name][0] for name in ("boxes", "scores", "similarities"))
            row = {"file": image["file"], "box": box, "score": score, "similarity": similarity}
            # As printed: what is listed with the similarity of the threshold is a match.
            match = round(similarity, 3) >= round(threshold, 3)
            ranked.append(row | {"match": match, "right": _is_right(box, image["file"], truth)})
    return sorted(ranked, key=lambda row: -row["similarity"])


def write_results(results: GalleryResults, out: Path, top_k: int, max_pixels: int) -> None:
    """Write `results.json`, `overview.jpg` and, in `gallery/`, a picture of each image with a match or in the overview.

    Args:
        out: folder to write to.
        top_k: people in the overview, one of each image.
        max_pixels: larger image files are refused.
    """
    query = Path(results.query["file"])
    images = {image["file"]: image for image in results.images}
    files = [Path(file) for file in images]
    matches = []
    for rank, row in enumerate(results.ranked):
        if rank >= top_k and not row["match"]:
            break
        file = Path(row["file"])
        scene = read_photo(file, max_pixels)
        if rank < top_k:
            name = short_path(file, files)
            word = verdict(row["match"], row["right"])
            color = FAINT if not row["match"] else RIGHT if row["right"] else BEST
            matches.append(Match(scene, row["box"], row["similarity"], name, word, color))
        image = images[row["file"]]
        row["picture"] = f"gallery/{rank + 1:03d}_{file.stem}.jpg"  # the rank keeps files of one name apart
        best = 0 if row["match"] else None
        save_jpeg(out / row["picture"], draw_detections(scene, image["boxes"], image["similarities"], best))
    title = headline(results.ranked, len(images))
    shown = f"; {counted(len(matches), 'image')} shown" if results.ranked and results.ranked[0]["match"] else ""
    title = title[0].upper() + title[1:] + shown
    sheet = overview(read_photo(query, max_pixels), results.query["box"], matches, query.name, title)
    save_jpeg(out / "overview.jpg", sheet)
    write_json(out / "results.json", vars(results))


def find_people(searcher: Searcher, photo: Path) -> list[list[float]]:
    """Boxes (x1, y1, x2, y2) of the people found in a photo, from left to right; ImageError if it cannot be read."""
    [(_, found)] = searcher([SearchRequest(photo)])
    return sorted(found.boxes.tolist())


def finds_nobody(searcher: Searcher, photo: Path, box: Sequence[float]) -> bool:
    """Whether nobody is found in a box (x1, y1, x2, y2) of a photo; ImageError if it cannot be read."""
    found = find_people(searcher, photo)
    return not found or paired_iou(box, found).max() < SAME_IOU


def write_people(photo: Path, boxes: Sequence[Sequence[float]], out: Path, max_pixels: int) -> None:
    """Write `people.jpg`: the photo with its people numbered from 1."""
    save_jpeg(out / "people.jpg", draw_numbered(read_photo(photo, max_pixels), boxes))


def save_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write uint8 H x W x 3 RGB to `path`."""
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, format="JPEG", quality=JPEG_QUALITY))


def _image(path: Path, found: ImageResult, similarities: np.ndarray) -> dict:
    order = np.argsort(-similarities, kind="stable")
    people = {"boxes": found.boxes, "scores": found.scores, "similarities": similarities}
    return {"file": str(path)} | {name: values[order].tolist() for name, values in people.items()}


def _is_right(box: Sequence[float], file: str, truth: Mapping[Path, Sequence[float]] | None) -> bool | None:
    if truth is None:
        return None
    true_box = truth.get(Path(file))
    return true_box is not None and bool(paired_iou(box, true_box) >= TRUE_IOU)
