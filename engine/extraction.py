"""From a network and a dataset to the arrays that are scored: one pass over the images."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from engine.features import Features
from models.person_search import PersonSearch
from models.postprocess import SearchedImage
from utils.distributed import is_distributed, is_main, rank, world_size
from utils.images import ImageReader


@dataclass
class _Job:
    """One image file, and what is wanted of it: indexes in the annotations of the gallery and of the queries."""

    path: str
    gallery: int | None
    queries: list[int]
    boxes: np.ndarray
    """The queries' boxes, then, where asked for, the annotated ones; g x 4."""


class _Images(Dataset):
    def __init__(self, jobs: list[_Job], read_image: ImageReader):
        self.jobs, self.read_image = jobs, read_image

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[_Job, Tensor]:
        return self.jobs[index], torch.from_numpy(self.read_image(self.jobs[index].path)).permute(2, 0, 1)


def extract_features(
    model: PersonSearch,
    gallery_set,
    query_set,
    *,
    device: torch.device,
    batch_size: int,
    num_workers: int,
    amp: torch.dtype | None = None,
    with_truth: bool = False,
) -> Features | None:
    """Search every gallery image and embed every query. An image that is both is run once.

    With several processes each takes a share of the images; the main one gets all, the others None. The network is left
    in the mode it came in.

    Args:
        model: the network, on `device`.
        gallery_set, query_set: datasets with annotations; the former reads the images.
        device: where to run.
        batch_size: images per forward pass.
        num_workers: processes that read images.
        amp: dtype of mixed precision, None for float32.
        with_truth: embed the annotated boxes of the gallery too.
    """
    jobs = _plan(gallery_set.annotations, query_set.annotations, with_truth)[rank() :: world_size()]
    loader = DataLoader(_Images(jobs, gallery_set.read_image), batch_size, num_workers=num_workers, collate_fn=list)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            found = [
                _collect(job, image)
                for batch in tqdm(loader, desc="search", unit="batch", disable=not is_main(), leave=False)
                for (job, _), image in zip(batch, _search(model, batch, device), strict=True)
            ]
    finally:
        model.train(was_training)
    shares = _gather(found)
    if shares is None:
        return None
    return _assemble(shares, len(gallery_set.annotations), len(query_set.annotations), with_truth)


def _plan(gallery: list[dict], queries: list[dict], with_truth: bool) -> list[_Job]:
    """The image files to run, each once."""
    of_image = defaultdict(list)
    for index, query in enumerate(queries):
        of_image[str(query["img_path"])].append(index)
    jobs = []
    for index, annotation in enumerate(gallery):
        path = str(annotation["img_path"])
        truth = annotation["boxes"] if with_truth else np.zeros((0, 4))
        asked = of_image.pop(path, [])
        jobs.append(_Job(path, index, asked, np.concatenate([_query_boxes(queries, asked), truth])))
    jobs.extend(_Job(path, None, asked, _query_boxes(queries, asked)) for path, asked in of_image.items())
    return jobs


def _query_boxes(queries: list[dict], indexes: list[int]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 4)), *(queries[i]["boxes"][:1] for i in indexes)])


def _search(model: PersonSearch, batch: list[tuple[_Job, Tensor]], device: torch.device) -> list[SearchedImage]:
    images = [image.to(device, non_blocking=True).float() / 255 for _, image in batch]
    boxes = [torch.as_tensor(job.boxes, dtype=torch.float32, device=device) for job, _ in batch]
    searched = model.search(images, boxes)
    return [
        result if len(result.boxes) or len(asked) < 2 else _each_alone(model, image, asked)
        for image, asked, result in zip(images, boxes, searched, strict=True)
    ]


def _each_alone(model: PersonSearch, image: Tensor, boxes: Tensor) -> SearchedImage:
    """Where nobody is detected a query is its own group, so several boxes of one image must not share a pass."""
    alone = [model.search([image], [box[None]])[0] for box in boxes]
    together = alone[0]
    together.given_boxes = boxes
    together.given_embeddings = torch.cat([result.given_embeddings for result in alone])
    return together


@dataclass
class _Found:
    """The arrays of one image, on the CPU."""

    job: _Job
    gallery: tuple[np.ndarray, np.ndarray] | None
    truth: np.ndarray
    queries: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    """Per query its embedding, and boxes with scores and embeddings of its context."""


def _collect(job: _Job, image: SearchedImage) -> _Found:
    gallery = _rows(image.as_gallery()) if job.gallery is not None else None
    queries = []
    for index in range(len(job.queries)):
        result = image.as_query(index)
        queries.append((result["embeddings"][0].float().cpu().numpy(), *_rows(result["context"])))
    truth = image.given_embeddings[len(job.queries) :].float().cpu().numpy()
    return _Found(job, gallery, truth, queries)


def _rows(result: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    rows = torch.cat([result["boxes"].float(), result["scores"].float()[:, None]], dim=1)
    return rows.cpu().numpy(), result["embeddings"].float().cpu().numpy()


def _gather(found: list[_Found]) -> list[_Found] | None:
    """All processes' results in the main process, None in the others."""
    if not is_distributed():
        return found
    shares = [None] * world_size() if is_main() else None
    dist.gather_object(found, shares)
    return [item for share in shares for item in share] if is_main() else None


def _assemble(found: list[_Found], gallery_size: int, num_queries: int, with_truth: bool) -> Features:
    gallery, truth, queries = [None] * gallery_size, [None] * gallery_size, [None] * num_queries
    for item in found:
        if item.job.gallery is not None:
            gallery[item.job.gallery], truth[item.job.gallery] = item.gallery, item.truth
        for index, query in zip(item.job.queries, item.queries, strict=True):
            queries[index] = query
    return Features(
        gallery_dets=[dets for dets, _ in gallery],
        gallery_feats=[feats for _, feats in gallery],
        truth_feats=truth if with_truth else None,
        query_feats=[feat for feat, _, _ in queries],
        query_context=[(dets, feats) for _, dets, feats in queries],
    )
