"""Search images for one person and draw what was found."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from utils.drawing import draw_detections
from utils.files import write_atomically, write_json
from utils.images import MAX_PIXELS, ImageError, ImageReader
from utils.sheets import Match, overview

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Request:
    """What to search: the query image, the person's box in its pixels (x1, y1, x2, y2), the gallery images."""

    query: Path
    box: tuple
    gallery: list


def search_gallery(model, request, out, top_k=9, device="cpu", max_pixels=MAX_PIXELS):
    """Search the gallery with `model`, write pictures and `results.json` to `out`, and return what the latter holds.

    Args:
        model: has `query(images, boxes)` and `model(images)`, see models.base.PersonSearchModel; in eval mode.
        top_k: matches in the overview, one of each gallery image.
        max_pixels: images with more are not read.

    Gallery images that cannot be read are listed under `failed`. Raises ImageError where the query image cannot be
    read, ValueError where the box is not inside it.
    """
    read_image = ImageReader(max_pixels)
    picture = read_image(request.query)
    check_box(request.box, picture, request.query)
    boxes = torch.tensor([request.box], dtype=torch.float32, device=device)
    images, failed = [], []
    with torch.inference_mode():
        embedding = model.query([to_tensor(picture, device)], [boxes])[0]["embeddings"][0]
        for path in tqdm(request.gallery, desc="search", unit="image", disable=None):
            try:
                scene = read_image(path)
            except ImageError as error:
                failed.append({"file": str(path), "error": str(error)})
                continue
            found = search_image(model, embedding, scene, device)
            name = f"gallery/{picture_name(path)}"
            save_jpeg(out / name, draw_detections(scene, found["boxes"], found["similarities"], found["best"]))
            images.append({"file": str(path), "picture": name, **found})
    ranked = rank_images(images)
    matches = [Match(read_image(r["file"]), r["box"], r["similarity"], Path(r["file"]).name) for r in ranked[:top_k]]
    save_jpeg(out / "overview.jpg", overview(picture, request.box, matches, request.query.name))
    query = {"file": str(request.query), "box": list(request.box)}
    results = {"query": query, "images": images, "ranked": ranked, "failed": failed}
    write_json(out / "results.json", results)
    return results


def search_image(model, embedding, scene, device="cpu"):
    """People in a picture: lists `boxes`, `scores`, `similarities`, and `best`, the row of the most similar or None."""
    found = model([to_tensor(scene, device)])[0]
    similarities = (found["embeddings"] @ embedding).tolist()
    best = max(range(len(similarities)), key=similarities.__getitem__, default=None)
    boxes, scores = found["boxes"].tolist(), found["scores"].tolist()
    return {"boxes": boxes, "scores": scores, "similarities": similarities, "best": best}


def rank_images(images):
    """The best match of each image that shows anybody: `file`, `box`, `score`, `similarity`, in falling similarity."""
    ranked = []
    for image in images:
        best = image["best"]
        if best is not None:
            row = {"box": image["boxes"][best], "score": image["scores"][best]}
            ranked.append({"file": image["file"], **row, "similarity": image["similarities"][best]})
    return sorted(ranked, key=lambda row: -row["similarity"])


def check_box(box, picture, path):
    """Raise ValueError where a box (x1, y1, x2, y2) is without area or not inside its picture."""
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(
            f"--box {x1:g} {y1:g} {x2:g} {y2:g} is no box inside {path}, which is {width} x {height} pixels: "
            "give the left, top, right and bottom edge of the person"
        )


def to_tensor(picture, device) -> Tensor:
    """uint8 H x W x 3 to float 3 x H x W in [0, 1]."""
    return torch.from_numpy(picture).to(device).permute(2, 0, 1).float() / 255


def picture_name(path):
    """Name of the JPEG drawn for an image; the whole file name goes in, so that a.png and a.jpg stay apart."""
    return path.name if path.suffix.lower() in (".jpg", ".jpeg") else f"{path.name}.jpg"


def save_jpeg(path, picture):
    """Write uint8 H x W x 3 RGB to `path`."""
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, format="JPEG", quality=JPEG_QUALITY))
