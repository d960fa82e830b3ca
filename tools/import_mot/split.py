"""Split MOTChallenge sequences into training images, gallery and queries of a person-search dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.writers import image_name
from tools.import_mot.sequence import MotSequence
from tools.importing import MIN_APPEARANCES, Item, Splits, appearances, queries_in, seen_again
from utils.boxes import clip_boxes
from utils.errors import UserError
from utils.labels import UNLABELLED

FrameRanges = tuple[tuple[int, int], ...]
"""First and last frame of each range."""


@dataclass(frozen=True)
class SplitRules:
    """How frames are chosen and which boxes count.

    Attributes:
        train, gallery: frame numbers; None: each sequence's first half, and its second.
        stride: every how many frames of these one is taken.
        query_every: every how many gallery images, from the first on, one has its people as queries.
        min_width, min_height: pixels inside the image; smaller people keep their box, for the detector, but not their
            identity: they are too small to be recognised.
        min_visibility: 0 ... 1; people less visible than this (MOT16 and later annotate it) are left out.
        shared_ids: an id is the same person in every sequence.
    """

    train: FrameRanges | None = None
    gallery: FrameRanges | None = None
    stride: int = 1
    query_every: int = 30
    min_width: int = 8
    min_height: int = 16
    min_visibility: float = 0.1
    shared_ids: bool = False


def split_sequences(sequences: Sequence[MotSequence], cameras: Sequence[int], rules: SplitRules) -> Splits:
    """Images of several sequences, one camera number (1 and up) for each, as a person-search dataset.

    Track numbers are identities if ids are shared. Else the largest of all sequences before is added to them, so the
    first sequence keeps its own. In training a person seen once becomes a person without identity: no second image is
    there to learn from. A person who is in one gallery image only is no query. Raises UserError where a sequence lacks
    frames asked for.
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
        queries += queries_in(own_gallery[:: rules.query_every])
        if not rules.shared_ids:
            first_pid += int(sequence.tracks.max(initial=0))
    trained = appearances(train)
    for image in train:
        image["pids"][[trained[int(pid)] < MIN_APPEARANCES for pid in image["pids"]]] = UNLABELLED
    return Splits(train, gallery, seen_again(queries, gallery))


def _frames(sequence: MotSequence, rules: SplitRules) -> tuple[list[int], list[int]]:
    """Frame numbers of the training and the gallery images."""
    half = sequence.length // 2
    ranges = rules.train or ((1, half),), rules.gallery or ((half + 1, sequence.length),)
    for first, last in (*ranges[0], *ranges[1]):
        if not 1 <= first <= last <= sequence.length:
            raise UserError(f"{sequence.folder}: frames {first}-{last} asked for, has frames 1 to {sequence.length}")
    train, gallery = ({frame for a, b in pairs for frame in range(a, b + 1)} for pairs in ranges)
    if train & gallery:
        raise UserError(f"{sequence.folder}: frame {min(train & gallery)} would be both training and gallery")
    return sorted(train)[:: rules.stride], sorted(gallery)[:: rules.stride]


def _image(sequence: MotSequence, frame: int, camera: int, recording: int, first_pid: int, rules: SplitRules) -> Item:
    """The image dict of a frame; boxes are rounded to whole pixels and cut to the image."""
    here = (sequence.frames == frame) & (sequence.visibility >= rules.min_visibility)
    boxes = clip_boxes(np.rint(sequence.boxes[here]), sequence.width, sequence.height).astype(np.int32)
    sides, tracks = boxes[:, 2:] - boxes[:, :2], sequence.tracks[here]
    recognised = (sides >= (rules.min_width, rules.min_height)).all(axis=1) & (tracks != UNLABELLED)
    inside = (sides > 0).all(axis=1)
    return {
        "img_name": image_name("prw", frame, camera, recording),
        "img_path": sequence.image(frame),
        "boxes": boxes[inside],
        "pids": np.where(recognised, first_pid + tracks, UNLABELLED)[inside].astype(np.int32),
        "cam_id": camera,
    }
