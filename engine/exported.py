"""Networks from ONNX files that tools.export wrote, run by onnxruntime: they search as those they were made from do."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from models.base import PersonSearchModel
from models.preprocess import PIXEL_FORMATS, ImageBatch, Preprocess
from models.results import SearchResult, Thresholds
from utils.errors import UserError

INPUTS = ("images", "sizes", "boxes")
OUTPUTS = ("people", "scores", "found", "embeddings", "query_embeddings")
"""Names in a file, in order; `models.fixed.FixedNetwork.forward` says what each is."""

Run: TypeAlias = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]
"""From the arrays of `INPUTS`, by name, to those of `OUTPUTS`, in order."""


@dataclass(frozen=True)
class Description:
    """What one must know to use a file: its metadata hold this as JSON under the key `search`.

    Attributes:
        min_size: short side of a resized image, in pixels.
        max_size: upper limit of its long side, which takes precedence.
        size_divisible: images are padded with zeros, on the right and at the bottom, to multiples of it.
        pixels: a key of `models.preprocess.PIXEL_FORMATS`, which says what `mean` and `std` are: of values in [0, 1].
        people: N, most people that are found in an image.
        boxes: k, boxes that are embedded with an image.
        embedding: D, numbers of an embedding.
        min_score, nms_iou, max_detections: which of the people stay; see `models.results.Thresholds`.
        weight_by_score: embeddings of a gallery are multiplied by their scores.
        weights: checksum of the weights.
    """

    min_size: int
    max_size: int
    size_divisible: int
    pixels: str
    people: int
    boxes: int
    embedding: int
    min_score: float
    nms_iou: float
    max_detections: int
    weight_by_score: bool
    weights: str

    def as_json(self) -> str:
        """JSON, with `mean`, `std` and `bgr` of the pixels for other readers."""
        return json.dumps(asdict(self) | asdict(PIXEL_FORMATS[self.pixels]))


def description_from(text: str) -> Description:
    """The description in JSON; KeyError or ValueError where it is none."""
    values = json.loads(text)
    return Description(**{name: values[name] for name in Description.__dataclass_fields__})


class ExportedNetwork(PersonSearchModel):
    """A network that another program runs, in eval mode; it cannot be trained.

    Args:
        run: the other program.
        description: of the network.
    """

    def __init__(self, run: Run, description: Description):
        super().__init__(
            Preprocess(
                description.min_size, description.max_size, description.size_divisible, pixels=description.pixels
            )
        )
        self.run, self.description = run, description
        self.thresholds = Thresholds(description.min_score, description.nms_iou, description.max_detections)
        self.eval()

    @property
    def embedding_width(self) -> int:
        return self.description.embedding

    def search_batch(self, batch: ImageBatch, boxes: list[Tensor]) -> list[SearchResult]:
        """As `PersonSearchModel.search_batch`; where more boxes are given than a run embeds, there are several runs."""
        given, step = [own.cpu() for own in batch.resize_boxes(boxes)], self.description.boxes
        most = max(map(len, given))
        arrays = {"images": batch.tensors.cpu().numpy(), "sizes": np.array(batch.sizes, dtype=np.float32)}
        runs = []
        for first in range(0, max(most, 1), step):
            # Boxes that fill up are embedded for nothing; they change no other's embedding.
            asked = np.tile(np.float32([0, 0, 32, 32]), (len(given), step, 1))
            for row, own in zip(asked, given, strict=True):
                part = own[first : first + step].numpy()
                row[: len(part)] = part
            outputs = self.run(arrays | {"boxes": asked})
            runs.append({name: torch.from_numpy(value) for name, value in zip(OUTPUTS, outputs, strict=True)})
        found, queries = runs[0]["found"], torch.cat([run["query_embeddings"] for run in runs], dim=1)
        people = batch.restore_boxes([own[kept] for own, kept in zip(runs[0]["people"], found, strict=True)])
        return [
            SearchResult(
                boxes=people[index],
                scores=runs[0]["scores"][index][kept],
                embeddings=runs[0]["embeddings"][index][kept],
                query_boxes=boxes[index].cpu(),
                query_embeddings=queries[index, : len(boxes[index])],
                thresholds=self.thresholds,
                weight_by_score=self.description.weight_by_score,
            )
            for index, kept in enumerate(found)
        ]


def read_onnx(path: Path) -> tuple[ExportedNetwork, str]:
    """The network in an ONNX file, and the options that it was exported with, as YAML.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: onnxruntime is not installed or cannot read the file, or tools.export has not written it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise UserError(f"{path} needs onnxruntime: pip install -r requirements-export.txt") from None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, which have no common base
        raise UserError(f"{path} cannot be read as an ONNX file ({error}): export it again") from error
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        description, config = description_from(metadata["search"]), metadata["config"]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is no network of this project: write it with python -m tools.export") from error
    # A function, not a method: copies of the network share the session, which cannot be copied.
    return ExportedNetwork(lambda arrays: session.run(None, arrays), description), config
