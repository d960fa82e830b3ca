"""How much company repeats in a dataset, and what re-ranking by it can gain.

    python -m tools.company --name PRW

Two figures come from the annotations alone: how often two images of a person share a second person, and how often an
image of the person and a random one do. Then people are searched with drawn embeddings, plain, with CBGM and with
companion voting; nothing is detected wrongly, one person in ten is missed. The last rows say what voting would gain if
companions were recognised without error. --noise sets how well the embeddings tell people apart: choose it so that the
plain mAP is near your network's.

The training images, which are the default, may choose EVAL.COMPANIONS; the test images may not. Settings are chosen by
mAP, and weight 0, no voting, where they gain less than chance may. Store them with a checkpoint:

    python -m tools.company --name PRW --ckpt outputs/glcnet_prw/best.pth --out outputs/glcnet_prw/voting.pth
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python tools/company.py`

from datasets import QueryGallery, build_dataset, dataset_root
from datasets.build import DATASETS
from defaults import get_default_cfg
from tools.common import add_traceback_argument, new_parser, positive_int, run_program
from utils.errors import UserError
from utils.evaluation import CompanionVoting, evaluate_search
from utils.logging import format_table

DIMENSIONS = 32  # few, so that people who are different look alike by chance, as they do to a network
EXACT_DIMENSIONS = 256  # of vectors that tell everybody apart
FOUND = 0.9
SAMPLES = 20_000

Images = list[dict[str, Any]]
"""Annotations, see datasets.base.PersonSearchDataset."""


class Sighting(NamedTuple):
    """A person in an image: places in the annotations and among the image's boxes."""

    image: int
    box: int


def sightings_of(images: Images) -> dict[int, list[Sighting]]:
    """Where each person with identity is seen; people seen in one image only are left out."""
    seen: dict[int, list[Sighting]] = defaultdict(list)
    for image, annotation in enumerate(images):
        for box, pid in enumerate(annotation["pids"].tolist()):
            if pid > 0:
                seen[pid].append(Sighting(image, box))
    return {pid: places for pid, places in seen.items() if len({place.image for place in places}) > 1}


def repeated_company(images: Images, rng: np.random.Generator) -> dict[str, float]:
    """Shares, 0 ... 1, of sampled pairs of images with a second person in common: both with one person, or one without.

    Where cameras are known, the two are of different cameras.
    """
    seen, people = sightings_of(images), [set(image["pids"][image["pids"] > 0].tolist()) for image in images]
    cameras = [image.get("cam_id", index) for index, image in enumerate(images)]
    starts = [(pid, place.image) for pid, places in seen.items() for place in places]
    shared: dict[bool, list[bool]] = {True: [], False: []}
    for start in rng.integers(len(starts), size=SAMPLES):
        pid, first = starts[start]
        with_person, other = seen[pid][rng.integers(len(seen[pid]))].image, int(rng.integers(len(images)))
        for second in (with_person, other):
            if cameras[second] != cameras[first]:
                shared[pid in people[second]].append(bool((people[first] & people[second]) - {pid}))
    return {
        "the person in both": float(np.mean(shared[True] or 0.0)),
        "the person in one": float(np.mean(shared[False] or 0.0)),
    }


def drawn_search(
    images: Images, num_queries: int, noise: float, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A search among the annotated people, by drawn embeddings.

    Args:
        num_queries: at most; drawn among the people who are seen in two images.
        noise: length of the vector that is added to an identity's unit vector, before the sum is normalised.

    Returns:
        Arguments of `evaluate_search`; and the same with companions who are recognised without error: every embedding
        is followed by the identity's own vector, which is all that companions are compared by, and queries are not. It
        is as long as makes the similarities of one identity the same as those of drawn embeddings, on average.
    """
    places = [place for places in sightings_of(images).values() for place in places]
    order = rng.permutation(len(places))[:num_queries]
    queries = [places[index] for index in sorted(order)]
    identities: dict[int, np.ndarray] = defaultdict(lambda: _unit(rng.standard_normal(DIMENSIONS)))

    def embedding(pid: int) -> np.ndarray:
        identity = identities[pid] if pid > 0 else _unit(rng.standard_normal(DIMENSIONS))
        return _unit(identity + noise * _unit(rng.standard_normal(DIMENSIONS))).astype(np.float32)

    feats = [np.reshape([embedding(pid) for pid in image["pids"].tolist()], (-1, DIMENSIONS)) for image in images]
    found = [np.flatnonzero(rng.random(len(image["pids"])) < FOUND) for image in images]
    dets = [np.c_[image["boxes"], np.ones(len(image["boxes"]))].astype(np.float32) for image in images]
    # A query's context: itself first, then the others that are found in its image.
    context_rows = [np.r_[query.box, np.setdiff1d(found[query.image], query.box)] for query in queries]
    context = [
        (dets[query.image][rows], feats[query.image][rows]) for query, rows in zip(queries, context_rows, strict=True)
    ]
    annotations = [{"boxes": images[query.image]["boxes"][query.box][None]} for query in queries]
    given = {
        "gallery_set": SimpleNamespace(annotations=images),
        "query_set": SimpleNamespace(annotations=annotations, galleries=lambda *_: _galleries(images, queries)),
        "gallery_dets": [rows[kept] for rows, kept in zip(dets, found, strict=True)],
        "gallery_feats": [rows[kept] for rows, kept in zip(feats, found, strict=True)],
        "query_feats": [own[0] for _, own in context],
        "query_context": context,
    }
    exact = [_identity_vectors(image["pids"], rng) / np.hypot(1, noise) for image in images]
    width = exact[0].shape[1]
    known = given | {
        "gallery_feats": [np.hstack([own, exact[n][found[n]]]) for n, own in enumerate(given["gallery_feats"])],
        "query_feats": [np.pad(own, (0, width)) for own in given["query_feats"]],
        "query_context": [
            (boxes, np.hstack([np.zeros_like(own), exact[query.image][rows]]))
            for query, rows, (boxes, own) in zip(queries, context_rows, context, strict=True)
        ],
    }
    return given, known


def _identity_vectors(pids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A unit vector for each person, the same for the same identity; another one for each without identity."""
    vectors = np.empty((len(pids), EXACT_DIMENSIONS), np.float32)
    for row, pid in enumerate(pids.tolist()):
        generator = np.random.default_rng(pid) if pid > 0 else rng
        vectors[row] = _unit(generator.standard_normal(EXACT_DIMENSIONS))
    return vectors


def _galleries(images: Images, queries: list[Sighting]) -> Iterator[QueryGallery]:
    """Of each query all other images."""
    seen = sightings_of(images)
    for query in queries:
        pid = int(images[query.image]["pids"][query.box])
        shown = {place.image: images[place.image]["boxes"][place.box] for place in seen[pid]}
        shown.pop(query.image)
        others = np.delete(np.arange(len(images)), query.image)
        yield QueryGallery(others, np.array(list(shown)), np.array(list(shown.values())), len(shown))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def chosen(trials: dict[CompanionVoting, np.ndarray], plain: np.ndarray) -> CompanionVoting:
    """The best settings; weight 0 where their gain in mAP is less than two standard errors, which may be chance.

    Args:
        trials: average precision of each query, by settings.
        plain: the same without re-ranking.
    """
    best = max(trials, key=lambda voting: trials[voting].mean())
    gains = trials[best] - plain
    return best if gains.mean() > 2 * gains.std() / len(gains) ** 0.5 else best._replace(weight=0.0)


def main(args: argparse.Namespace) -> None:
    """Print both tables and the choice, and store it with a checkpoint where one is named."""
    if bool(args.ckpt) != bool(args.out):
        raise UserError("--ckpt FILE and --out FILE belong together: the checkpoint, and its copy with the settings")
    root = args.root or dataset_root(args.name, get_default_cfg().SYS_HOME_DIR)
    images, rng = build_dataset(args.name, root, args.split).annotations, np.random.default_rng(args.seed)
    if not sightings_of(images):
        raise UserError(f"{root}: no person of the {args.split} split is seen in two images")
    sys.stdout.write("pairs of images with a second person in common (%)\n")
    sys.stdout.write(f"{format_table([repeated_company(images, rng)])}\n\n")
    given, known = drawn_search(images, args.queries, args.noise, rng)
    k1, k2 = DATASETS[args.name].cbgm_k1, DATASETS[args.name].cbgm_k2
    plain = evaluate_search(**given)
    table = {"none": plain, f"CBGM, {k1} and {k2}": evaluate_search(**given, cbgm=True, k1=k1, k2=k2)}
    trials = {}
    for voting in (CompanionVoting(weight, quantile) for quantile in args.quantiles for weight in args.weights):
        scores = evaluate_search(**given, voting=voting)
        table[f"companions, {voting.weight:g} and {voting.quantile:g}"] = scores
        trials[voting] = scores["ap"]
    for voting in trials:
        if voting.quantile == max(args.quantiles):
            table[f"companions recognised without error, {voting.weight:g}"] = evaluate_search(**known, voting=voting)
    rows = [{"re-ranking": title, "mAP": row["mAP"], "top1": row["top1"]} for title, row in table.items()]
    sys.stdout.write(f"{len(plain['ap'])} queries, drawn embeddings (%)\n{format_table(rows)}\n\n")
    choice = chosen(trials, plain["ap"])
    options = ["EVAL.COMPANIONS.WEIGHT", f"{choice.weight:g}", "EVAL.COMPANIONS.QUANTILE", f"{choice.quantile:g}"]
    sys.stdout.write(f"chosen: {' '.join(options)}\n")
    if args.out:
        from tools.converting import store_options

        store_options(args.ckpt, args.out, options)
        sys.stdout.write(f"stored with the weights in {args.out}\n")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = new_parser("company", __doc__)
    add = parser.add_argument
    add("--name", required=True, choices=list(DATASETS), help="whose format it has")
    add("--root", type=Path, metavar="FOLDER", help="the dataset's folder (default: where training looks for it)")
    add("--split", choices=("train", "gallery"), default="train", help="whose images (default: %(default)s)")
    add("--noise", type=float, default=0.85, help="of the drawn embeddings (default: %(default)s)")
    add("--queries", type=positive_int, default=1000, metavar="N", help="at most (default: %(default)s)")
    weights, quantiles = (0.2, 0.4, 0.6), (0.99, 0.998)
    add("--weights", type=float, nargs="+", default=weights, metavar="W", help="EVAL.COMPANIONS.WEIGHT to try")
    add("--quantiles", type=float, nargs="+", default=quantiles, metavar="Q", help="EVAL.COMPANIONS.QUANTILE to try")
    add("--ckpt", type=Path, metavar="FILE", help="a checkpoint, to be copied to --out with the chosen settings")
    add("--out", type=Path, metavar="FILE", help="the copy; tools.test --ckpt FILE --companions then uses them")
    add("--seed", type=int, default=1, help="of all that is drawn (default: %(default)s)")
    add_traceback_argument(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(run_program(main, parse_args()))
