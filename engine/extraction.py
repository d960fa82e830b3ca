"""One pass of a network over a dataset's images: what it says of the gallery and of the queries."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from engine.feature_parts import FeatureParts, ImageFeatures
from engine.features import Features
from models.base import PersonSearchModel
from models.fast import prepare_for_inference
from models.results import SearchResult, to_cpu
from utils.distributed import is_distributed, is_main, rank, world_size
from utils.images import ImageReader
from utils.signals import leave_signals_to_parent

WAITING_BYTES = 256 * 2**20
"""Of images (uint8) that wait at most for others of their size; more only where one batch takes more. For a
CUDA device they wait in pinned memory, which cannot be swapped out."""

T = TypeVar("T")


@dataclass
class _Job:
    """One image file, and what is wanted of it: indexes in the annotations of the gallery and of the queries."""

    path: str
    gallery: int | None
    queries: list[int]
    boxes: np.ndarray
    """The queries' boxes, then, where asked for, the annotated ones; g x 4."""


class _Decoded(NamedTuple):
    """An image (uint8, 3 x H x W) and what is wanted of it."""

    job: _Job
    image: Tensor


class _DecodedImages(Dataset):
    """Decodes, in the loader's processes."""

    def __init__(self, jobs: list[_Job], read_image: ImageReader):
        self.jobs, self.read_image = jobs, read_image

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> _Decoded:
        pixels = torch.from_numpy(self.read_image(self.jobs[index].path)).permute(2, 0, 1)
        return _Decoded(self.jobs[index], pixels)


def extract_features(
    model: PersonSearchModel,
    gallery_set,
    query_set,
    *,
    device: torch.device,
    batch_size: int,
    num_workers: int,
    amp: torch.dtype | None = None,
    compiled: bool = False,
    with_truth: bool = False,
    parts: FeatureParts | None = None,
) -> Features | None:
    """Search every gallery image and embed every query. An image that is both is run once.

    With several processes each takes a share of the images; the main one gets all, the others None. The network is left
    as it is.

    Args:
        model: the network, on `device`.
        gallery_set, query_set: datasets with annotations; the former reads the images.
        device: where to run.
        batch_size: images per forward pass, of one padded size.
        num_workers: processes that read images.
        amp: dtype of reduced precision, None for float32.
        compiled: see `prepare_for_inference`.
        with_truth: embed the annotated boxes of the gallery too.
        parts: where results go as they come, and what an interrupted call has left there; None keeps them in memory.

    Raises:
        ValueError: a box has no area, or the gallery holds an image file twice; before the network runs.
        ImageError: an image cannot be read.
    """
    jobs = _plan(gallery_set.annotations, query_set.annotations, with_truth)
    known, done = parts.read() if parts is not None else ([], set())
    mine = [job for job in jobs if job.path not in done][rank() :: world_size()]
    searcher = prepare_for_inference(model, amp, compiled)
    found = []
    try:
        pictures = _DecodedImages(mine, gallery_set.read_image)
        for batch in _batches(pictures, searcher, batch_size, num_workers, device):
            results = to_cpu(_search(searcher, batch, device))
            images = [_collect(*pair) for pair in zip(batch, results, strict=True)]
            found += images
            if parts is not None:
                parts.add(images)
    finally:
        if parts is not None:
            parts.write()
    shares = _gather(found)
    if shares is None:
        return None
    return _assemble([*known, *shares], jobs, len(gallery_set.annotations), len(query_set.annotations), with_truth)


def _plan(gallery: list[dict], queries: list[dict], with_truth: bool) -> list[_Job]:
    """The image files to run, each once; raises ValueError where the gallery repeats one or a box has no area."""
    of_image = defaultdict(list)
    for index, query in enumerate(queries):
        of_image[str(query["img_path"])].append(index)
    paths = [str(annotation["img_path"]) for annotation in gallery]
    _check_once(paths)
    jobs = []
    for index, (path, annotation) in enumerate(zip(paths, gallery, strict=True)):
        truth = annotation["boxes"] if with_truth else np.zeros((0, 4))
        asked = of_image.pop(path, [])
        jobs.append(_Job(path, index, asked, np.concatenate([_query_boxes(queries, asked), truth])))
    jobs.extend(_Job(path, None, asked, _query_boxes(queries, asked)) for path, asked in of_image.items())
    for job in jobs:
        _check_area(job)
    return jobs


def _check_once(paths: list[str]) -> None:
    path, times = Counter(paths).most_common(1)[0] if paths else ("", 0)
    if times > 1:
        raise ValueError(f"{path} is in the gallery {times} times: list each image once")


def _check_area(job: _Job) -> None:
    """Boxes are checked here, on the host: on a CUDA device each check would wait for the network."""
    has_area = (job.boxes[:, 2:] > job.boxes[:, :2]).all(axis=1)
    if not has_area.all():
        raise ValueError(
            f"{job.path} has a box without area, {job.boxes[~has_area][0].tolist()}: correct its annotation; "
            "boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2"
        )


def _query_boxes(queries: list[dict], indexes: list[int]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 4)), *(queries[i]["boxes"][:1] for i in indexes)])


def _batches(
    pictures: _DecodedImages, searcher: PersonSearchModel, batch_size: int, num_workers: int, device: torch.device
) -> Iterator[list[_Decoded]]:
    """All images in batches of one padded size, with a progress bar over images in the main process."""
    images = DataLoader(
        pictures,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        worker_init_fn=_set_up_worker,
        pin_memory=device.type == "cuda",
    )
    bar = tqdm(images, desc="search", unit="image", disable=not is_main(), leave=False)
    return grouped(
        bar,
        lambda item: searcher.preprocess.padded_size(*item.image.shape[1:]),
        batch_size,
        lambda item: item.image.nbytes,
        WAITING_BYTES,
    )


def _as_it_is(item: _Decoded) -> _Decoded:
    """In place of the loader's default, which would make tensors of the jobs' arrays and the images' sizes."""
    return item


def _set_up_worker(_: int) -> None:
    leave_signals_to_parent()


def grouped(
    items: Iterable[T], key: Callable[[T], Hashable], size: int, cost: Callable[[T], int], most_waiting: int
) -> Iterator[list[T]]:
    """Items in lists of `size` that have one key.

    Where those that wait for others are more than `size` and cost more than `most_waiting`, the most numerous of them
    go on as they are, and at the end all do.
    """
    waiting = defaultdict(list)
    count = total = 0
    for item in items:
        name = key(item)
        waiting[name].append(item)
        count, total = count + 1, total + cost(item)
        if len(waiting[name]) < size:
            if total <= most_waiting or count <= size:
                continue
            name = max(waiting, key=lambda k: len(waiting[k]))
        count, total = count - len(waiting[name]), total - sum(map(cost, waiting[name]))
        yield waiting.pop(name)
    yield from waiting.values()


@torch.inference_mode()
def _search(searcher: PersonSearchModel, batch: list[_Decoded], device: torch.device) -> list[SearchResult]:
    images = [item.image.to(device, non_blocking=True) for item in batch]
    return searcher.search(images, [torch.as_tensor(item.job.boxes, dtype=torch.float32) for item in batch])


def _collect(item: _Decoded, image: SearchResult) -> ImageFeatures:
    """The arrays of one image; what follows the network is done on the CPU, where small steps cost less.

    All are copies: a view, even of no rows, would keep the embeddings of the whole batch for as long as the image's.
    """
    job = item.job
    gallery = _rows(image.gallery()) if job.gallery is not None else None
    queries = []
    for index in range(len(job.queries)):
        result = image.query(index)
        queries.append((result["embeddings"][0].numpy().copy(), *_rows(result["context"])))
    truth = image.query_embeddings[len(job.queries) :].numpy().copy()
    return ImageFeatures(job.path, gallery, truth, queries)


def _rows(result: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    rows = torch.cat([result["boxes"], result["scores"][:, None]], dim=1)
    return rows.numpy(), result["embeddings"].numpy()


def _gather(found: list[ImageFeatures]) -> list[ImageFeatures] | None:
    """All processes' results in the main process, None in the others."""
    if not is_distributed():
        return found
    shares = [None] * world_size() if is_main() else None
    dist.gather_object(found, shares)
    return [item for share in shares for item in share] if is_main() else None


def _assemble(
    found: list[ImageFeatures], jobs: list[_Job], gallery_size: int, num_queries: int, with_truth: bool
) -> Features:
    of_path = {image.path: image for image in found}
    gallery, truth, queries = [None] * gallery_size, [None] * gallery_size, [None] * num_queries
    for job in jobs:
        image = of_path[job.path]
        if job.gallery is not None:
            gallery[job.gallery], truth[job.gallery] = image.gallery, image.truth
        for index, query in zip(job.queries, image.queries, strict=True):
            queries[index] = query
    return Features(
        gallery_dets=[dets for dets, _ in gallery],
        gallery_feats=[feats for _, feats in gallery],
        truth_feats=truth if with_truth else None,
        query_feats=[feat for feat, _, _ in queries],
        query_context=[(dets, feats) for _, dets, feats in queries],
    )
