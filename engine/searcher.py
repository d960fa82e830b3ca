"""Search images from anywhere (files, arrays or frames of a video) with any network of the project."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from engine.devices import select_device
from engine.networks import open_network
from engine.requests import ImageSource, SearchRequest, check_boxes, check_inside, tensor_of
from models.base import PersonSearchModel
from models.fast import prepare_for_inference
from models.results import SearchResult, to_cpu
from utils.distributed import is_main
from utils.errors import UserError
from utils.images import MAX_PIXELS, read_photo
from utils.signals import leave_signals_to_parent

WAITING_BYTES = 256 * 2**20
"""Bytes of decoded images that wait for others of their padded size, unless a single batch takes more."""

ErrorHook: TypeAlias = Callable[[int, UserError], None]


@dataclass
class People:
    """People of one image: `boxes` n x 4 (x1, y1, x2, y2 in its pixels), `scores` n, `embeddings` n x D; float32."""

    boxes: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Boxes and scores as one array, n x 5."""
        return np.concatenate([self.boxes, self.scores[:, None]], axis=1)


@dataclass
class ImageResult(People):
    """The people found in one image (their embeddings weighted by the scores, if the network says so) and its queries.

    Attributes:
        query_embeddings: g x D, unit vectors of the boxes of the request.
        contexts: for each of the first `num_contexts` boxes the box itself and then the other people, with unit
            vectors: what context bipartite graph matching compares.
        scene: D, the embedding of the whole image, which the network's gallery filter compares; None without one.
    """

    query_embeddings: np.ndarray
    contexts: list[People]
    scene: np.ndarray | None = None


class Found(NamedTuple):
    """A person found: the image as given, the `box` (x1, y1, x2, y2 in its pixels), detection score, similarity."""

    image: ImageSource
    box: list[float]
    score: float
    similarity: float


class Searcher:
    """Runs a network over images in batches, with loader processes and a progress bar.

    A batch holds images of one padded size, so that no result depends on the other images of its batch.

    Args:
        model: a network, moved to `device`, of which a copy, prepared for inference, searches; or the path of a
            checkpoint that carries its options, or of a published one.
        device: where to run; "auto" is CUDA where there is one, else the CPU.
        batch_size: images in a forward pass.
        num_workers: loader processes; 0 decodes in the main process.
        amp: bfloat16 or float16 for reduced precision, None for float32.
        compiled: run parts of the network through torch.compile.
        max_pixels: larger image files (width x height) are refused.
        read: reads an image file, given its path and `max_pixels`: `utils.images.read_photo` turns photos upright,
            `read_image` keeps the pixels as stored, to which the boxes of datasets refer.

    Raises:
        OSError, UserError: see `engine.networks.open_network` and `engine.devices.select_device`.
    """

    def __init__(
        self,
        model: PersonSearchModel | str | Path,
        device: torch.device | str = "auto",
        batch_size: int = 1,
        num_workers: int = 0,
        amp: torch.dtype | None = None,
        compiled: bool = False,
        max_pixels: int = MAX_PIXELS,
        read: Callable[[str | Path, int], np.ndarray] = read_photo,
    ):
        if not isinstance(model, PersonSearchModel):
            _, model = open_network(model)
        self.device = select_device(device) if isinstance(device, str) else device
        self.model = prepare_for_inference(model.to(self.device), amp, compiled)
        self.batch_size, self.num_workers, self.max_pixels, self.read = batch_size, num_workers, max_pixels, read

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
        for index, _, result in self._results(images, on_error):
            yield index, result

    def with_images(
        self, requests: Iterable[SearchRequest | ImageSource], on_error: ErrorHook | None = None
    ) -> Iterator[tuple[int, Tensor, ImageResult]]:
        """Search images as `__call__` does, for callers that need the pixels, too; without a progress bar.

        Yields:
            The index of a request, its image (3 x H x W, see `engine.requests.tensor_of`) and its result.
        """
        return self._results(self._decoded(requests), on_error)

    def search(self, query: ImageSource, box: Sequence[float], gallery: Sequence[ImageSource]) -> list[Found]:
        """All people in the gallery images, by falling similarity to the person in a box of the query image.

        Args, Raises: see `compare`; an image that cannot be read is a UserError.
        """
        found = [
            Found(gallery[index], people.boxes[row].tolist(), float(people.scores[row]), float(similarities[row]))
            for index, people, similarities in self.compare(query, box, gallery)
            for row in range(len(similarities))
        ]
        return sorted(found, key=lambda person: -person.similarity)

    def compare(
        self,
        query: ImageSource,
        box: Sequence[float],
        gallery: Iterable[ImageSource],
        on_error: ErrorHook | None = None,
    ) -> Iterator[tuple[int, ImageResult, np.ndarray]]:
        """Search gallery images for the person in a box of the query image.

        Args:
            query: the image that shows the person, see SearchRequest.
            box: x1, y1, x2, y2 in pixels of the query image.
            gallery: images.
            on_error: see `__call__`.

        Yields:
            The index of a gallery image, the people found in it, and the similarity of each to the person: the inner
            product of their embeddings, at most 1.

        Raises:
            UserError: the query image cannot be read, or the box is not inside it or too small.
            ValueError: an image of another shape, type or range.
        """
        image = tensor_of(query, self.read, self.max_pixels)
        check_inside(box, image, query if isinstance(query, str | Path) else "the query image")
        [(_, asked)] = self([SearchRequest(image, [box])])
        for index, people in self(gallery, on_error):
            yield index, people, people.embeddings @ asked.query_embeddings[0]

    def _decoded(self, requests: Iterable[SearchRequest | ImageSource]) -> Iterable["_Decoded"]:
        decode = partial(_decode, read=self.read, max_pixels=self.max_pixels)
        if not isinstance(requests, Sequence):
            return map(decode, enumerate(requests))
        return DataLoader(
            list(enumerate(requests)),
            batch_size=None,
            collate_fn=decode,
            num_workers=min(self.num_workers, max(len(requests) - 1, 0)),
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.device.type == "cuda",
        )

    def _results(
        self, images: Iterable["_Decoded"], on_error: ErrorHook | None
    ) -> Iterator[tuple[int, Tensor, ImageResult]]:
        for batch in self._batches(_valid(images, on_error)):
            for item, result in zip(batch, self._search(batch), strict=True):
                yield item.index, item.image, result

    def _batches(self, images: Iterable["_Decoded"]) -> Iterator[list["_Decoded"]]:
        """Lists of `batch_size` images of one padded size; fewer where too many images wait, and at the end."""
        waiting: dict[tuple[int, int], list[_Decoded]] = defaultdict(list)
        waiting_bytes = 0
        for item in images:
            size = self.model.preprocess.padded_size(*item.image.shape[-2:])
            waiting[size].append(item)
            waiting_bytes += item.image.nbytes
            full = len(waiting[size]) == self.batch_size
            if full or (waiting_bytes > WAITING_BYTES and sum(map(len, waiting.values())) > self.batch_size):
                batch = waiting.pop(size if full else max(waiting, key=lambda key: len(waiting[key])))
                waiting_bytes -= sum(each.image.nbytes for each in batch)
                yield batch
        yield from waiting.values()

    @torch.inference_mode()
    def _search(self, batch: list["_Decoded"]) -> list[ImageResult]:
        images = [item.image.to(self.device, non_blocking=True) for item in batch]
        results = to_cpu(self.model.search(images, [torch.from_numpy(item.boxes) for item in batch]))
        return [_collect(result, item.num_contexts) for result, item in zip(results, batch, strict=True)]


class _Decoded(NamedTuple):
    """A request with its image as a tensor 3 x H x W, or the reason (`error`) why it cannot be searched."""

    index: int
    image: Tensor
    boxes: np.ndarray
    num_contexts: int | None = None
    error: UserError | None = None


def _decode(numbered: tuple[int, SearchRequest | ImageSource], read: Callable, max_pixels: int) -> _Decoded:
    index, request = numbered
    if not isinstance(request, SearchRequest):
        request = SearchRequest(request)
    boxes = np.zeros((0, 4)) if request.boxes is None else np.asarray(request.boxes)
    try:
        check_boxes(boxes, request.image if isinstance(request.image, str | Path) else f"image {index}")
        image = tensor_of(request.image, read, max_pixels)
        return _Decoded(index, image, boxes.astype(np.float32), request.num_contexts)
    except UserError as error:  # handed on: raised in a loader process it would end the whole search
        return _Decoded(index, torch.empty(0), boxes, error=error)


def _valid(images: Iterable[_Decoded], on_error: ErrorHook | None) -> Iterator[_Decoded]:
    """The images without error; the others go to `on_error`, or the first error is raised."""
    for item in images:
        if item.error is None:
            # A copy: images wait for their batch, and containers have little shared memory for loader processes.
            yield item._replace(image=item.image.clone()) if item.image.is_shared() else item
        elif on_error is None:
            raise item.error
        else:
            on_error(item.index, item.error)


def _collect(result: SearchResult, num_contexts: int | None) -> ImageResult:
    """The arrays of an image; all are copies, for a view would keep the arrays of the whole batch."""
    queries = range(len(result.query_boxes))[:num_contexts]
    return ImageResult(
        **_arrays(result.gallery()),
        query_embeddings=result.query_embeddings.numpy().copy(),
        contexts=[People(**_arrays(result.query(index)["context"])) for index in queries],
        scene=None if result.scene is None else result.scene.numpy().copy(),
    )


def _arrays(people: dict[str, Tensor]) -> dict[str, np.ndarray]:
    # No views of the batch: `gallery` and `query` have indexed and concatenated.
    return {name: tensor.numpy() for name, tensor in people.items()}
