"""Search images from anywhere, files, arrays or frames of a video, with any network of the project."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.base import PersonSearchModel
from models.fast import prepare_for_inference
from models.results import SearchResult, to_cpu
from utils.distributed import is_main
from utils.errors import UserError
from utils.images import MAX_PIXELS, read_image
from utils.signals import leave_signals_to_parent

WAITING_BYTES = 256 * 2**20
"""Bytes of decoded images that wait for others of their padded size, unless a single batch takes more."""

ImageSource: TypeAlias = str | Path | np.ndarray | Tensor | Image.Image
ErrorHook: TypeAlias = Callable[[int, UserError], None]


@dataclass(frozen=True)
class SearchRequest:
    """An image to search, and the people in it that are asked about.

    Attributes:
        image: a path, a uint8 RGB array H x W x 3, an RGB tensor 3 x H x W (uint8, or float in [0, 1]), or a PIL image.
        boxes: g x 4, x1, y1, x2, y2 in pixels of the image; None for nobody.
    """

    image: ImageSource
    boxes: np.ndarray | Sequence | None = None


@dataclass
class Detections:
    """People of one image: `boxes` n x 4 (x1, y1, x2, y2 in its pixels), `scores` n, `embeddings` n x D; float32."""

    boxes: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Boxes and scores as one array, n x 5."""
        return np.concatenate([self.boxes, self.scores[:, None]], axis=1)


@dataclass
class ImageResult(Detections):
    """What was found in one image, as a gallery (embeddings may be weighted by the scores) and as a query.

    Attributes:
        query_embeddings: g x D, unit vectors of the boxes asked about.
        contexts: for each of these boxes the box itself and then the other people, with unit vectors: what context
            bipartite graph matching compares.
    """

    query_embeddings: np.ndarray
    contexts: list[Detections]


class Searcher:
    """A network made ready for searching, and how it is fed: in batches of one padded size, on which no result depends.

    Args:
        model: the network. It is moved to `device` and otherwise left as it is, for a copy of it searches.
        device: where to run.
        batch_size: images in a forward pass.
        num_workers: loader processes; 0 decodes in the main process.
        amp: bfloat16 or float16 for reduced precision, None for float32.
        compiled: run parts of the network through torch.compile.
        max_pixels: larger image files (width x height) are refused.
    """

    def __init__(
        self,
        model: PersonSearchModel,
        device: torch.device | str,
        batch_size: int = 1,
        num_workers: int = 0,
        amp: torch.dtype | None = None,
        compiled: bool = False,
        max_pixels: int = MAX_PIXELS,
    ):
        self.device = torch.device(device)
        self.model = prepare_for_inference(model.to(self.device), amp, compiled)
        self.batch_size, self.num_workers, self.max_pixels = batch_size, num_workers, max_pixels

    def __call__(
        self, requests: Iterable[SearchRequest | ImageSource], on_error: ErrorHook | None = None
    ) -> Iterator[tuple[int, ImageResult]]:
        """Search images, with a progress bar on terminals.

        Args:
            requests: requests or bare images. Loader processes read a sequence; any other iterable, such as the frames
                of a video, is read in the main process while it is searched.
            on_error: called with the index and the error of an image that cannot be read or whose boxes have no area;
                the image is then skipped. Without it the error is raised.

        Yields:
            The index of a request and its result, in the order in which batches finish.

        Raises:
            UserError: see `on_error`.
            ValueError: an image or boxes of another shape or type.
        """
        off = None if is_main() else True  # None: off where there is no terminal
        images = tqdm(self._decoded(requests), desc="search", unit="image", disable=off, leave=False)
        for batch in self._batches(images, on_error):
            for item, result in zip(batch, self._search(batch), strict=True):
                yield item.index, result

    def _decoded(self, requests: Iterable[SearchRequest | ImageSource]) -> Iterable["_Decoded"]:
        decode = partial(_decode, max_pixels=self.max_pixels)
        if not isinstance(requests, Sequence):
            return map(decode, enumerate(requests))
        return DataLoader(
            list(enumerate(requests)),
            batch_size=None,
            collate_fn=decode,
            num_workers=min(self.num_workers, max(len(requests) - 1, 0)),
            worker_init_fn=_set_up_worker,
            pin_memory=self.device.type == "cuda",
        )

    def _batches(self, images: Iterable["_Decoded"], on_error: ErrorHook | None) -> Iterator[list["_Decoded"]]:
        """Images in lists of `batch_size` that have one padded size; where too many wait, and at the end, in fewer."""
        waiting: dict[tuple[int, int], list[_Decoded]] = defaultdict(list)
        for item in images:
            if item.error is not None:
                if on_error is None:
                    raise item.error
                on_error(item.index, item.error)
                continue
            image = item.image.clone() if item.image.is_shared() else item.image  # containers have little shared memory
            size = self.model.preprocess.padded_size(*image.shape[-2:])
            waiting[size].append(item._replace(image=image))
            everything = [waits.image.nbytes for group in waiting.values() for waits in group]
            if len(waiting[size]) == self.batch_size:
                yield waiting.pop(size)
            elif sum(everything) > WAITING_BYTES and len(everything) > self.batch_size:
                yield waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
        yield from waiting.values()

    @torch.inference_mode()
    def _search(self, batch: list["_Decoded"]) -> list[ImageResult]:
        images = [item.image.to(self.device, non_blocking=True) for item in batch]
        boxes = [torch.from_numpy(item.boxes) for item in batch]
        return [_collect(result) for result in to_cpu(self.model.search(images, boxes))]


class _Decoded(NamedTuple):
    """A request with its image as a tensor 3 x H x W, or why it cannot be searched."""

    index: int
    image: Tensor
    boxes: np.ndarray
    error: UserError | None = None


def _set_up_worker(_: int) -> None:
    leave_signals_to_parent()


def _decode(numbered: tuple[int, SearchRequest | ImageSource], max_pixels: int) -> _Decoded:
    index, request = numbered
    if not isinstance(request, SearchRequest):
        request = SearchRequest(request)
    boxes = np.zeros((0, 4)) if request.boxes is None else np.asarray(request.boxes)
    try:
        check_boxes(boxes, request.image if isinstance(request.image, str | Path) else f"image {index}")
        return _Decoded(index, _tensor_of(request.image, max_pixels), boxes.astype(np.float32))
    except UserError as error:  # handed on: raised in a loader process it would end the whole search
        return _Decoded(index, torch.empty(0), boxes, error)


def check_boxes(boxes: np.ndarray, name: str | Path) -> None:
    """Refuse boxes of an image that are not g x 4 (ValueError), or of which one has no area (UserError)."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"the boxes of {name} must be g x 4, but are {boxes.shape}")
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(boxes).all(axis=1)
    if not has_area.all():
        raise UserError(
            f"{name} has a box without area, {boxes[~has_area][0].tolist()}: correct it; boxes are x1, y1, x2, y2 in "
            "pixels with x1 < x2 and y1 < y2"
        )


def _tensor_of(image: ImageSource, max_pixels: int) -> Tensor:
    if isinstance(image, str | Path):
        image = read_image(image, max_pixels)
    elif isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3:
        image = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3 or len(image) != 3:
        what = f"{type(image).__name__} {getattr(image, 'dtype', '')} {list(getattr(image, 'shape', []))}"
        raise ValueError(f"an image is a path, a PIL image, a uint8 array H x W x 3 or a tensor 3 x H x W, not {what}")
    return image


def _collect(result: SearchResult) -> ImageResult:
    """The arrays of an image; all are copies, for a view would keep the arrays of the whole batch."""
    queries = [result.query(index) for index in range(len(result.query_boxes))]
    return ImageResult(
        *_arrays(result.gallery()),
        query_embeddings=result.query_embeddings.numpy().copy(),
        contexts=[Detections(*_arrays(query["context"])) for query in queries],
    )


def _arrays(people: dict[str, Tensor]) -> list[np.ndarray]:
    return [people[name].numpy() for name in ("boxes", "scores", "embeddings")]
