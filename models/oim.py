"""Online instance matching (OIM, Xiao et al., CVPR 2017): the re-identification loss and its memory of identities."""

from collections import Counter, defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.distributed import gather_counts, gather_rows, sum_over_processes, world_size
from utils.labels import BACKGROUND

IGNORED = -100  # class of the rows that have no loss, see `cross_entropy`
MEANS = ("labelled", "people")


class OIMLoss(nn.Module):
    """Cross-entropy of a person against the lookup table of identities and a circular queue of people without identity.

    Logits are scalar * features @ [lut; cq].T. The tables have no gradient: each call in train mode first computes the
    loss with the tables as they are, then updates them by the features of that call, one after the other: a person with
    identity updates its row, `row <- normalise(momentum * row + (1 - momentum) * x)`, one without overwrites the queue
    at its head. If a feature is not finite, nothing is updated.

    With several processes, all tables are updated by the features of all processes (in the order of ranks) and so stay
    equal; the loss is scaled so that the mean over processes is the mean over all people that it counts.

    Args:
        num_features: D, length of an embedding.
        num_ids: P, identities of the training set.
        queue_size: Q, people without identity that are remembered.
        momentum: share of a row that an update keeps.
        scalar: factor on the cosine similarities.
        mask_empty: rows of tables that are still zero take no part (GFN): the similarity to them counts as -1, or 1
            where the row is the person's own.
        mean_over: what the loss is the mean over, one of `MEANS`: the people with identity, or all people, those
            without identity costing 0 (GFN).

    Buffers: `lut` P x D, `cq` Q x D, `header` (int64 scalar, the queue's head).
    """

    lut: Tensor
    cq: Tensor
    header: Tensor

    def __init__(
        self,
        num_features: int,
        num_ids: int,
        queue_size: int,
        momentum: float = 0.5,
        scalar: float = 30.0,
        mask_empty: bool = False,
        mean_over: str = "labelled",
    ):
        super().__init__()
        self.momentum, self.scalar = momentum, scalar
        self.mask_empty, self.mean_over = mask_empty, mean_over
        self.register_buffer("lut", torch.zeros(num_ids, num_features))
        self.register_buffer("cq", torch.zeros(queue_size, num_features))
        self.register_buffer("header", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar; 0, with a gradient of 0, where nobody has an identity.

        Args:
            features: n x D, unit vectors.
            labels: int64 n; 0 background, 1 ... P identities, -1 a person without identity.

        Raises:
            ValueError: in train mode, a label beyond P.
        """
        with torch.autocast(features.device.type, enabled=False):
            loss = self._loss(features.float(), labels)
        if self.training:
            self._update(features.detach().float(), labels)
        return loss

    def _loss(self, features: Tensor, labels: Tensor) -> Tensor:
        known = (labels > BACKGROUND) & (labels <= len(self.lut))
        tables = torch.cat([self.lut, self.cq])  # a copy: the tables change before the backward pass reads them
        similarities, rows = features @ tables.T, (labels - 1).where(known, IGNORED)
        if self.mask_empty:
            own = torch.arange(len(tables), device=rows.device) == rows[:, None]
            similarities = similarities.where(tables.any(dim=1), 2.0 * own - 1)
        total = F.cross_entropy(self.scalar * similarities, rows, ignore_index=IGNORED, reduction="sum")
        counted = known if self.mean_over == "labelled" else labels != BACKGROUND
        return total * world_size() / sum_over_processes(counted.sum()).clamp(min=1)

    @torch.no_grad()
    def _update(self, features: Tensor, labels: Tensor) -> None:
        counts = gather_counts(len(labels), labels.device)
        features, labels = gather_rows(features, counts), gather_rows(labels, counts)
        # Labels and the flag in one copy from the device.
        *on_host, finite = torch.cat([labels, features.isfinite().all()[None]]).tolist()
        if on_host and max(on_host) > len(self.lut):
            raise ValueError(f"identity {max(on_host)} is beyond the lookup table's rows, num_ids {len(self.lut)}")
        if not finite:
            return
        rounds = _rounds(on_host)
        queued = [position for position, label in enumerate(on_host) if label < BACKGROUND]
        positions = torch.tensor(sum(rounds, queued), dtype=torch.int64, device=labels.device)
        queue_positions, *round_positions = positions.split([len(queued), *map(len, rounds)])
        for chosen in round_positions:
            rows = labels[chosen] - 1
            self.lut[rows] = self._moved(self.lut[rows], features[chosen])
        if size := len(self.cq):
            self.header += len(queued)
            last = features[queue_positions][-size:]  # what comes earlier would be overwritten in the same call
            self._enqueue((self.header - len(last) + torch.arange(len(last), device=labels.device)) % size, last)
            self.header %= size

    def _moved(self, rows: Tensor, features: Tensor) -> Tensor:
        """Rows of identities after features of theirs, both n x D."""
        return F.normalize(self.momentum * rows + (1 - self.momentum) * features)

    def _enqueue(self, places: Tensor, features: Tensor) -> None:
        """Write features n x D to places of the queue, int64 n."""
        self.cq[places] = features


def _rounds(labels: list[int]) -> list[list[int]]:
    """The positions of identities among the labels, in rounds in which each identity occurs at most once.

    An identity that occurs twice in a batch updates its row twice, in order, so the second time is in a later round.
    """
    rounds, seen = defaultdict(list), Counter()
    for position, label in enumerate(labels):
        if label > BACKGROUND:
            rounds[seen[label]].append(position)
            seen[label] += 1
    return list(rounds.values())
