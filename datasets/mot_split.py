"""Split MOTChallenge sequences into training images, gallery and queries of a person-search dataset."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from datasets.writers import image_name
from utils.labels import UNLABELLED

MIN_APPEARANCES = 2


@dataclass(frozen=True)
class SplitRules:
    """How frames are chosen and which boxes count.

    train, gallery   frame numbers as (first, last) pairs; None: each sequence's first half, and its second
    stride           every how many frames of these one is taken
    query_every      every how many gallery images, from the first on, one has its people as queries
    min_width, min_height   pixels of the part inside the image; smaller people keep their box but not their identity:
                     they are people for the detector, and too small to be told apart
    min_visibility   0 ... 1; people less visible than this (MOT16 and later tell it) are left out
    """

    train: tuple | None = None
    gallery: tuple | None = None
    stride: int = 1
    query_every: int = 30
    min_width: int = 8
    min_height: int = 16
    min_visibility: float = 0.1


@dataclass(frozen=True)
class MotSplit:
    """`train`, `gallery` and `queries` as `datasets.writers.write_annotations` takes them.

    Images have one key more, `img_path`: the picture in the sequence's folder.
    """

    train: list
    gallery: list
    queries: list


def split_sequences(sequences, cameras, rules) -> MotSplit:
    """Images of several MotSequences, one camera number (1 ... 6) for each, as a person-search dataset.

    Track numbers become identities by adding the largest of all sequences before, so the first sequence keeps its own.
    In training a person seen once becomes a person without identity: no second image is there to learn from. A person
    who is in one gallery image only is no query. Raises ValueError where a sequence lacks frames asked for.
    """
    train, gallery, queries = [], [], []
    first_pid = 0
    for number, (sequence, camera) in enumerate(zip(sequences, cameras, strict=True)):
        recording = 1 + list(cameras[:number]).count(camera)
        own_train, own_gallery = (
            [_image(sequence, frame, camera, recording, first_pid, rules) for frame in frames]
            for frames in _frames(sequence, rules)
        )
        train += own_train
        gallery += own_gallery
        queries += _queries(own_gallery[:: rules.query_every])
        first_pid += sequence.num_tracks
    _unlabel_rare(train)
    seen = _count(gallery)
    return MotSplit(train, gallery, [query for query in queries if seen[query["pid"]] >= MIN_APPEARANCES])


def _frames(sequence, rules):
    """Frame numbers of the training and the gallery images."""
    half = sequence.length // 2
    train = rules.train or ((1, half),)
    gallery = rules.gallery or ((half + 1, sequence.length),)
    for first, last in (*train, *gallery):
        if not 1 <= first <= last <= sequence.length:
            raise ValueError(
                f"{sequence.folder}: has frames 1 to {sequence.length}, frames {first}-{last} were asked for"
            )
    train, gallery = (np.unique(np.concatenate([np.arange(a, b + 1) for a, b in pairs])) for pairs in (train, gallery))
    both = np.intersect1d(train, gallery)
    if both.size:
        raise ValueError(f"{sequence.folder}: frame {both[0]} would be both training and gallery")
    return train[:: rules.stride].tolist(), gallery[:: rules.stride].tolist()


def _image(sequence, frame, camera, recording, first_pid, rules):
    """The image dict of a frame; boxes are rounded to whole pixels and cut to the image."""
    boxes, pids = [], []
    for person in sequence.boxes.get(frame, ()):
        corners = np.rint([person.x1, person.y1, person.x2, person.y2])
        x1, y1, x2, y2 = corners.clip(0, [sequence.width, sequence.height] * 2).astype(np.int32)
        if x2 <= x1 or y2 <= y1 or person.visibility < rules.min_visibility:
            continue
        large = x2 - x1 >= rules.min_width and y2 - y1 >= rules.min_height
        known = large and person.track != UNLABELLED
        boxes.append((x1, y1, x2, y2))
        pids.append(first_pid + person.track if known else UNLABELLED)
    return {
        "img_name": image_name("prw", frame, camera, recording),
        "img_path": sequence.image(frame),
        "boxes": np.array(boxes, dtype=np.int32).reshape(-1, 4),
        "pids": np.array(pids, dtype=np.int32),
        "cam_id": camera,
    }


def _queries(images):
    return [
        {"img_name": image["img_name"], "box": box, "pid": int(pid)}
        for image in images
        for box, pid in zip(image["boxes"], image["pids"], strict=True)
        if pid != UNLABELLED
    ]


def _count(images):
    return Counter(int(pid) for image in images for pid in image["pids"])


def _unlabel_rare(images):
    counts = _count(images)
    rare = [pid for pid, count in counts.items() if count < MIN_APPEARANCES]
    for image in images:
        image["pids"][np.isin(image["pids"], rare)] = UNLABELLED
