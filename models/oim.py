"""Online instance matching (OIM, Xiao et al., CVPR 2017): the re-identification loss and its memory of identities."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.distributed import gather_counts, gather_rows, world_size
from utils.labels import BACKGROUND


@dataclass(frozen=True)
class Plan:
    """All that labels decide about a step, so that the step itself reads nothing back from the device.

    Attributes:
        people: int64, p: which boxes show people.
        learning: int64: which of these have an identity and so a loss.
        targets: int64: their rows in the table of identities.
        counts: people of each process.
        num_known: people with identity of all processes.
        turns: among the people of all processes, one process after the other: which have an identity, and their rows;
            a turn holds a row at most once, and several people of one row come in their order.
        queued: int64: which of the same people have none.
    """

    people: Tensor
    learning: Tensor
    targets: Tensor
    counts: list[int]
    num_known: int
    turns: list[tuple[Tensor, Tensor]]
    queued: Tensor


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

    def forward(self, features: Tensor, labels: Tensor, plan: Plan | None = None) -> Tensor:
        """The loss, a scalar; 0, with a gradient of 0, where nobody has an identity.

        Args:
            features: n x D, unit vectors.
            labels: int64 n; 0 background, 1 ... P identities, -1 a person without identity.
            plan: what `plan` made of these labels earlier.

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
        plan = plan or self.plan(labels)
        features = features[plan.people].float()
        with torch.autocast(features.device.type, enabled=False):
            loss = self._loss(features, plan)
        if self.training:
            self._move_tables(gather_rows(features.detach(), plan.counts), plan)
        return loss

    def plan(self, labels: Tensor) -> Plan:
        """What the labels (as in `forward`) decide. It waits for the device: call it while nothing is queued there."""
        on_host = labels.cpu()
        people = (on_host != BACKGROUND).nonzero()[:, 0]
        own = on_host[people]
        counts = gather_counts(len(own), labels.device)
        everyone = gather_rows(own.to(labels.device), counts).cpu()
        if len(everyone) and everyone.max() > len(self.lut):
            raise ValueError(f"identity {everyone.max()} is beyond MODEL.OIM.NUM_IDS, {len(self.lut)}")
        known = (everyone > BACKGROUND).nonzero()[:, 0]
        turn = _occurrence(everyone[known])
        known = known[turn.argsort(stable=True)]
        learning = (own > BACKGROUND).nonzero()[:, 0]
        parts = people, learning, own[learning] - 1, known, everyone[known] - 1, (everyone < BACKGROUND).nonzero()[:, 0]
        # One copy to the device for all of them.
        people, learning, targets, known, rows, queued = (
            torch.cat(parts).to(labels.device).split([len(part) for part in parts])
        )
        sizes = turn.bincount().tolist()
        return Plan(
            people=people,
            learning=learning,
            targets=targets,
            counts=counts,
            num_known=len(known),
            turns=list(zip(known.split(sizes), rows.split(sizes), strict=True)),
            queued=queued,
        )

    def _loss(self, features: Tensor, plan: Plan) -> Tensor:
        # A copy: the tables move before backward reads them.
        tables = torch.cat([self.lut, self.cq])
        logits = self.scalar * features[plan.learning] @ tables.T
        per_person = F.cross_entropy(logits, plan.targets, reduction="sum")
        return per_person * (world_size() / max(plan.num_known, 1))

    @torch.no_grad()
    def _move_tables(self, features: Tensor, plan: Plan) -> None:
        """Move both tables as if the people came one by one; features that are not finite move nothing."""
        usable = features.isfinite().all()
        lut = self.lut.clone()
        for positions, rows in plan.turns:
            moved = self.momentum * lut[rows] + (1 - self.momentum) * features[positions]
            lut[rows] = F.normalize(moved)
        self.lut.copy_(torch.where(usable, lut, self.lut))
        cq, header = self._moved_queue(features[plan.queued])
        self.cq.copy_(torch.where(usable, cq, self.cq))
        self.header.copy_(torch.where(usable, header, self.header))

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
