"""Search images for one person and draw what was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from engine.searcher import Searcher, SearchRequest
from utils.drawing import draw_detections
from utils.errors import UserError
from utils.files import write_atomically, write_json
from utils.images import read_image
from utils.sheets import Match, overview

JPEG_QUALITY = 92


@dataclass(frozen=True)
class GalleryRequest:
    """What to search: the query image, the person's box in its pixels (x1, y1, x2, y2), the gallery images."""

    query: Path
    box: tuple[float, float, float, float]
    gallery: list[Path]


def search_gallery(searcher: Searcher, request: GalleryRequest, out: Path, top_k: int = 9) -> dict:
    """Search the gallery, write pictures and `results.json` to `out`, and return what the latter holds.

    Args:
        top_k: matches in the overview, one of each gallery image.

    Gallery images that cannot be read are listed under `failed`.

    Raises:
        ImageError: the query image cannot be read.
        UserError: the box is not inside it.
    """
    picture = read_image(request.query, searcher.max_pixels)
    check_box(request.box, picture, request.query)
    [(_, query)] = searcher([SearchRequest(picture, [request.box])])
    images, failed = {}, {}

    def note_failure(index: int, error: UserError) -> None:
        failed[index] = {"file": str(request.gallery[index]), "error": str(error)}

    for index, found in searcher(request.gallery, on_error=note_failure):
        path = request.gallery[index]
        similarities = (found.embeddings @ query.query_embeddings[0]).tolist()
        best = int(np.argmax(similarities)) if similarities else None
        # The whole file name, so that a.png and a.jpg stay apart.
        name = f"gallery/{path.name if path.suffix.lower() in ('.jpg', '.jpeg') else f'{path.name}.jpg'}"
        scene = read_image(path, searcher.max_pixels)
        save_jpeg(out / name, draw_detections(scene, found.boxes, similarities, best))
        people = {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "similarities": similarities}
        images[index] = {"file": str(path), "picture": name, **people, "best": best}
    in_order = [images[index] for index in sorted(images)]
    results = {
        "query": {"file": str(request.query), "box": list(request.box)},
        "images": in_order,
        "ranked": rank_images(in_order),
        "failed": [failed[index] for index in sorted(failed)],
    }
    matches = [
        Match(read_image(row["file"], searcher.max_pixels), row["box"], row["similarity"], Path(row["file"]).name)
        for row in results["ranked"][:top_k]
    ]
    save_jpeg(out / "overview.jpg", overview(picture, request.box, matches, request.query.name))
    write_json(out / "results.json", results)
    return results


def rank_images(images: list[dict]) -> list[dict]:
    """The best match of each image with people: `file`, `box`, `score`, `similarity`, by falling similarity."""
    ranked = []
    for image in images:
        if (best := image["best"]) is not None:
            box, score, similarity = (image[name][best] for name in ("boxes", "scores", "similarities"))
            ranked.append({"file": image["file"], "box": box, "score": score, "similarity": similarity})
    return sorted(ranked, key=lambda row: -row["similarity"])


def check_box(box: Sequence[float], picture: np.ndarray, path: Path) -> None:
    """Raise UserError where a box (x1, y1, x2, y2) is without area or not inside its picture."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise UserError(
            f"box {x1:g} {y1:g} {x2:g} {y2:g} is not inside {path}, which is {width} x {height} pixels: "
            "give the left, top, right and bottom edge of the person"
        )


def save_jpeg(path: Path, picture: np.ndarray) -> None:
    """Write uint8 H x W x 3 RGB to `path`."""
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, format="JPEG", quality=JPEG_QUALITY))
