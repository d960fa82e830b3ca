"""Online instance matching (OIM, Xiao et al., CVPR 2017): the re-identification loss and its memory of identities."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.distributed import gather_variable, sum_over_processes, world_size
from utils.labels import BACKGROUND


class OIMLoss(nn.Module):
    """Cross-entropy of a person against every identity of the training set and a queue of people without identity.

    Logits are scalar x (features . [lut; cq]). The tables have no gradient: each call in train mode first computes the
    loss with the tables as they are, then moves them with the features of that call, in their order: a person with
    identity moves their row, `row <- normalise(momentum row + (1 - momentum) x)`, one without overwrites the queue at
    its head.

    With several processes, all tables are moved by the features of all processes (in the order of ranks) and so stay
    equal; the loss is scaled so that the mean over processes is the mean over all people with identity.

    Args:
        num_features: D, length of an embedding.
        num_ids: P, identities of the training set.
        queue_size: Q, people without identity that are remembered.
        momentum: share of a row that an update keeps.
        scalar: factor on the similarities.

    Buffers: `lut` P x D, `cq` Q x D, `header` (int64 scalar, the queue's head).
    """

    def __init__(self, num_features: int, num_ids: int, queue_size: int, momentum: float = 0.5, scalar: float = 30.0):
        super().__init__()
        self.momentum, self.scalar = momentum, scalar
        self.register_buffer("lut", torch.zeros(num_ids, num_features))
        self.register_buffer("cq", torch.zeros(queue_size, num_features))
        self.register_buffer("header", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar; 0, with a gradient of 0, where nobody has an identity.

        Args:
            features: n x D, unit vectors.
            labels: int64 n; 0 background, 1 ... P identities, -1 a person without identity.

        Raises:
            ValueError: shapes that do not fit each other or the tables, or a table without rows.
        """
        if features.shape != (len(labels), self.lut.shape[1]):
            raise ValueError(
                f"OIM expects features n x {self.lut.shape[1]} and labels n, "
                f"but got {tuple(features.shape)} and {tuple(labels.shape)}"
            )
        if not len(self.lut):
            raise ValueError("the OIM loss has no identities: set MODEL.OIM.NUM_IDS to those of the training set")
        people = labels != BACKGROUND
        features, labels = features[people].float(), labels[people]
        with torch.autocast(features.device.type, enabled=False):
            loss = self._loss(features, labels)
        if self.training:
            self._move_tables(gather_variable(features.detach()), gather_variable(labels))
        return loss

    def _loss(self, features: Tensor, labels: Tensor) -> Tensor:
        # A copy: the tables move before backward reads them.
        tables = torch.cat([self.lut, self.cq])
        logits = self.scalar * features @ tables.T
        known = labels > BACKGROUND
        per_person = F.cross_entropy(logits[known], labels[known] - 1, reduction="sum")
        count = sum_over_processes(known.sum())
        return per_person * world_size() / count.clamp(min=1)

    @torch.no_grad()
    def _move_tables(self, features: Tensor, labels: Tensor) -> None:
        """Move both tables as if the people came one by one; features that are not finite move nothing."""
        usable = features.isfinite().all()
        known = labels > BACKGROUND
        lut = self._moved_lut(features[known], labels[known] - 1)
        self.lut.copy_(torch.where(usable, lut, self.lut))
        cq, header = self._moved_queue(features[~known])
        self.cq.copy_(torch.where(usable, cq, self.cq))
        self.header.copy_(torch.where(usable, header, self.header))

    def _moved_lut(self, features: Tensor, rows: Tensor) -> Tensor:
        """The identities' table after the features (n x D) of `rows` (n); several of one row act in their order."""
        lut = self.lut.clone()
        turn = _occurrence(rows)
        for k in range(int(turn.max()) + 1 if len(turn) else 0):  # each turn holds every row at most once
            now = turn == k
            moved = self.momentum * lut[rows[now]] + (1 - self.momentum) * features[now]
            lut[rows[now]] = F.normalize(moved)
        return lut

    def _moved_queue(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The queue and its head after the features (n x D) were written one after the other, around the end."""
        size, count = len(self.cq), len(features)
        if not size:
            return self.cq, self.header
        last = features[max(count - size, 0) :]  # what comes earlier would be overwritten in the same call
        slots = (self.header + count - len(last) + torch.arange(len(last), device=features.device)) % size
        return self.cq.index_copy(0, slots, last), (self.header + count) % size


def _occurrence(values: Tensor) -> Tensor:
    """For each element of an int64 vector, how many equal ones stand before it."""
    order = values.argsort(stable=True)
    ordered = values[order]
    position = torch.arange(len(values), device=values.device)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(starts, position, 0).cummax(0).values if len(values) else position
    return torch.empty_like(position).scatter_(0, order, position - first)
