"""The Gallery Filter Network (GFN; Jaffe and Zakhor, WACV 2023): how likely a person is in an image, seen as a whole.

An image has one embedding, its scene, which is compared with a query in one of three ways, `COMPARISONS`. Similarities
of all people of the image are multiplied by the score that comes of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Targets
from models.image_memory import ImageMemory, Visit
from models.roi import Tail
from models.two_stage.embedding import Projectors
from models.two_stage.features import max_grid
from utils.labels import BACKGROUND

GATE_TEMPERATURE, TEMPERATURE = 0.2, 0.1
"""Of the gates that a person sets on a scene, and of the loss, as released."""


class Views(NamedTuple):
    """Images and the people in them, in training.

    Attributes:
        scenes: I x D, unit vectors of the images.
        people: Q x D, unit vectors, or zeros.
        labels: int64 Q, their identities; -1 without.
        images: int64 Q, the index of each one's image.
    """

    scenes: Tensor
    people: Tensor
    labels: Tensor
    images: Tensor

    def shown(self) -> Tensor:
        """Which images show which people: bool I x Q. People without identity are in their own image alone."""
        own = torch.arange(len(self.scenes), device=self.images.device)[:, None] == self.images
        same = (self.labels[:, None] == self.labels) & (self.labels > BACKGROUND)
        return own | (own.float() @ same.float() > 0)

    def related(self) -> Tensor:
        """Which images show a person in common: bool I x I."""
        own = torch.arange(len(self.scenes), device=self.images.device)[:, None] == self.images
        return self.shown().float() @ own.float().T > 0

    def absent(self) -> Tensor:
        """Which images certainly do not show which people: bool I x Q.

        Somebody without identity may be unlabelled in an image that shows others of the same image.
        """
        return ~self.shown() & ((self.labels > BACKGROUND) | ~self.related()[:, self.images])


class Contrast(NamedTuple):
    """What a comparison learns to tell apart.

    Attributes:
        similarities: A x C.
        positives, negatives: bool A x C, which pairs belong together, and which do not; some may be neither.
    """

    similarities: Tensor
    positives: Tensor
    negatives: Tensor

    def loss(self) -> Tensor:
        """Cross-entropy of each positive against the negatives of its row, mean over the positives (NT-Xent).

        0, with a gradient of 0, where there are no positives, or no negatives.
        """
        logits = self.similarities / TEMPERATURE
        lowest = torch.finfo(logits.dtype).min  # not -inf, which would make gradients of rows without negatives NaN
        against = logits.masked_fill(~self.negatives, lowest).logsumexp(1, keepdim=True)
        losses = F.softplus(against - logits).where(self.positives, 0)
        return losses.sum() / self.positives.sum().clamp(min=1)


class CombinedComparison(nn.Module):
    """The scene of the query's image with that of a gallery image, both as the query sees them.

    A person's embedding q gates each entry of a scene s: z = BN(s sigmoid(q / 0.2)). Two such vectors are compared.

    Args:
        width: D.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def contrast(self, views: Views) -> Contrast:
        """Each person's view of its own image against its views of all images."""
        seen = self._gates(views.people)[:, None] * views.scenes
        seen = F.normalize(self.norm(seen.flatten(0, 1)).view_as(seen), dim=2)  # Q x I x D
        own = seen[torch.arange(len(seen), device=seen.device), views.images]
        return Contrast((seen @ own[:, :, None])[:, :, 0], views.shown().T, views.absent().T)

    def similarities(self, queries: Tensor, query_scenes: Tensor, gallery_scenes: Tensor) -> Tensor:
        """Q x G, with the running statistics of the batch norm, by which z is linear in s: z = s w + b.

        So products and squared lengths of Q x G vectors are three matrix products.
        """
        factor = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        b, w = self.norm.bias - self.norm.running_mean * factor, self._gates(queries) * factor
        own = query_scenes * w + b
        products = (own * w) @ gallery_scenes.T + own @ b[:, None]
        squares = w.square() @ gallery_scenes.T.square() + 2 * (w * b) @ gallery_scenes.T + b.square().sum()
        return products / (own.norm(dim=1, keepdim=True) * squares.clamp(min=0).sqrt()).clamp(min=1e-12)

    def _gates(self, people: Tensor) -> Tensor:
        return (people / GATE_TEMPERATURE).sigmoid()


class SeparateComparison(nn.Module):
    """The query's embedding with the scene of a gallery image (the paper's base objective)."""

    def contrast(self, views: Views) -> Contrast:
        """Each image against all people."""
        return Contrast(views.scenes @ views.people.T, views.shown(), views.absent())

    def similarities(self, queries: Tensor, _: Tensor, gallery_scenes: Tensor) -> Tensor:
        """Q x G."""
        return queries @ gallery_scenes.T


class ImageComparison(nn.Module):
    """The scene of the query's image with that of a gallery image, whoever the query is."""

    def contrast(self, views: Views) -> Contrast:
        """Each image against all images; what belongs together shows somebody in common."""
        related = views.related()
        return Contrast(views.scenes @ views.scenes.T, related, ~related)

    def similarities(self, _: Tensor, query_scenes: Tensor, gallery_scenes: Tensor) -> Tensor:
        """Q x G."""
        return query_scenes @ gallery_scenes.T


COMPARISONS: dict[str, Callable[[int], nn.Module]] = {
    "combined": CombinedComparison,
    "separate": lambda _: SeparateComparison(),
    "image": lambda _: ImageComparison(),
}
"""Name -> a comparison of embeddings of a width."""


def people_themselves(views: Views, _: Tensor) -> Views:
    """The people by their embeddings, those without identity included."""
    return views


def prototypes(views: Views, rows: Tensor) -> Views:
    """The people with identity, by their rows of the identity table."""
    known = torch.where(views.labels > BACKGROUND)[0]
    labels = views.labels[known]
    return Views(views.scenes, rows[labels - 1], labels, views.images[known])


QUERIES = {"batch": people_themselves, "prototype": prototypes}
"""What stands for a person in training."""


class SceneFilter(nn.Module):
    """Embeds images as a whole, and scores how likely a person is in them.

    Args:
        tail: a copy of the backbone's tail.
        channels: of `res4` and `res5`.
        width: D, length of a person's embedding, which an image's has, too.
        grid: cells along each axis that a map is pooled to.
        comparison: a key of `COMPARISONS`.
        queries: a key of `QUERIES`.
        memory: images that training learns from beside a batch; None: the batch alone.
    """

    def __init__(
        self,
        tail: Tail,
        channels: dict[str, int],
        width: int,
        grid: int,
        comparison: str,
        queries: str = "batch",
        memory: ImageMemory | None = None,
    ):
        super().__init__()
        self.tail, self.grid = tail, grid
        self.projectors = Projectors(channels, {"res4": width // 2, "res5": width - width // 2})
        self.comparison, self.queries, self.memory = COMPARISONS[comparison](width), QUERIES[queries], memory

    def scenes(self, feature_map: Tensor) -> Tensor:
        """Embeddings of images, B x D float32 (unit vectors), from their res4 maps B x C x h x w, padding included."""
        res4 = max_grid(feature_map, self.grid)
        vectors = {name: maps.amax((2, 3)) for name, maps in (("res4", res4), ("res5", self.tail(res4)))}
        with torch.autocast(feature_map.device.type, enabled=False):
            return F.normalize(self.projectors(vectors))

    def scores(self, queries: Tensor, query_scenes: Tensor, gallery_scenes: Tensor) -> Tensor:
        """See `models.base.GalleryFilter`. Scores are sigmoids of cosines, between 0.27 and 0.73."""
        device = next(self.parameters()).device
        vectors = (vector.to(device) for vector in (queries, query_scenes, gallery_scenes))
        return self.comparison.similarities(*vectors).sigmoid()

    def loss(self, scenes: Tensor, people: Tensor, targets: Targets, rows: Tensor) -> Tensor:
        """The contrastive loss, a scalar; 0 with a gradient of 0 where there is nobody to learn from.

        Args:
            scenes: B x D, as of `scenes`.
            people: n x D, embeddings of the people of the targets, one image after another.
            targets: per image `labels`, and with a memory `index`, the image's number in the training set.
            rows: P x D, the table of the identities' embeddings; a row that is zero gates by 1/2.
        """
        labels = [target["labels"] for target in targets]
        with torch.autocast(scenes.device.type, enabled=False):
            visits = list(map(Visit, F.normalize(people.float()).split([len(own) for own in labels]), labels, scenes))
            views = self.queries(_views(visits + self._remembered(visits, targets)), rows)
            if not len(views.labels):
                return nothing_learned(self)
            return self.comparison.contrast(views).loss()

    def _remembered(self, visits: list[Visit], targets: Targets) -> list[Visit]:
        """What the memory adds to the images of a batch, which it then remembers."""
        if self.memory is None:
            return []
        images = [target["index"] for target in targets]
        seen = [visit.copy_to("cpu") for visit in visits]
        drawn = self.memory.draw(images, [visit.identities for visit in seen])
        self.memory.remember(images, seen)
        return [visit.copy_to(visits[0].scene.device) for visit in drawn]


def _views(visits: list[Visit]) -> Views:
    labels = [visit.labels for visit in visits]
    images = torch.repeat_interleave(torch.tensor([len(own) for own in labels]))
    scenes = torch.stack([visit.scene for visit in visits])
    return Views(scenes, torch.cat([visit.people for visit in visits]), torch.cat(labels), images.to(scenes.device))


def nothing_learned(module: nn.Module) -> Tensor:
    """0, with a gradient of 0 for every parameter of a module: several processes wait for the gradient of each."""
    return sum(parameter.sum() for parameter in module.parameters()) * 0
