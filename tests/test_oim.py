"""The OIM loss against known answers, a plain twin, and its special cases."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.oim import OIMLoss


def plain_tables(lut, cq, header, features, labels, momentum=0.5):
    """The tables after one step, person by person."""
    lut, cq = lut.clone(), cq.clone()
    for x, label in zip(features, labels.tolist(), strict=True):
        if label > 0:
            lut[label - 1] = F.normalize(momentum * lut[label - 1] + (1 - momentum) * x, dim=0)
        elif label < 0:
            cq[header] = x
            header = (header + 1) % len(cq)
    return lut, cq, header


def test_four_steps_give_the_known_answers(shared_dir):
    known = np.load(shared_dir / "golden" / "oim.npz")
    oim = OIMLoss(16, 12, 6)
    oim.lut.copy_(torch.tensor(known["lut_0"]))
    oim.cq.copy_(torch.tensor(known["cq_0"]))
    for step in range(4):
        features = torch.tensor(known[f"features_{step}"], requires_grad=True)
        labels = torch.tensor(known[f"labels_{step}"])
        loss = oim(features, torch.where(labels == 5555, -1, labels))
        loss.backward()
        assert loss.item() == pytest.approx(float(known[f"loss_{step}"]), abs=1e-5)
        np.testing.assert_allclose(features.grad, known[f"grad_{step}"], atol=1e-5)
        np.testing.assert_allclose(oim.lut, known[f"lut_{step + 1}"], atol=1e-5)
        np.testing.assert_allclose(oim.cq, known[f"cq_{step + 1}"], atol=1e-5)
        assert oim.header.item() == int(known[f"header_{step + 1}"])


def test_tables_move_as_if_people_came_one_by_one():
    oim = OIMLoss(8, 5, 3)
    for _ in range(6):
        features = F.normalize(torch.randn(30, 8))
        labels = torch.randint(-1, 4, (30,))  # many of one identity, more without than the queue is long
        lut, cq, header = plain_tables(oim.lut, oim.cq, oim.header.item(), features, labels)
        oim(features, labels)
        torch.testing.assert_close(oim.lut, lut)
        torch.testing.assert_close(oim.cq, cq)
        assert oim.header.item() == header


def test_nobody_with_identity_gives_zero_with_a_gradient_and_fills_the_queue():
    oim = OIMLoss(4, 3, 2)
    features = F.normalize(torch.randn(3, 4)).requires_grad_()
    loss = oim(features, torch.tensor([0, -1, -1]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(features.grad, torch.zeros(3, 4))
    torch.testing.assert_close(oim.cq, features.detach()[1:])


def test_two_forwards_before_a_backward_are_possible():
    oim = OIMLoss(4, 3, 2)
    features = F.normalize(torch.randn(2, 4)).requires_grad_()
    (oim(features, torch.tensor([1, 2])) + oim(features, torch.tensor([2, 3]))).backward()
    assert features.grad.isfinite().all()


def test_a_plan_made_before_gives_the_same():
    features, labels = F.normalize(torch.randn(30, 8)), torch.randint(-1, 4, (30,))
    one, other = OIMLoss(8, 5, 3), OIMLoss(8, 5, 3)
    assert torch.equal(one(features, labels), other(features, labels, other.plan(labels)))
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def test_identities_beyond_the_table_are_refused():
    with pytest.raises(ValueError, match="identity 6 is beyond MODEL.OIM.NUM_IDS, 5"):
        OIMLoss(8, 5, 3).plan(torch.tensor([1, 6, -1]))


def test_a_step_reads_nothing_back_from_the_device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know meta tensors
    oim, labels = OIMLoss(8, 5, 3), torch.randint(-1, 4, (30,))
    plan, meta = oim.plan(labels), oim.to("meta")
    features = torch.randn(30, 8, device="meta", requires_grad=True)
    parts = {name: value.to("meta") for name, value in vars(plan).items() if isinstance(value, torch.Tensor)}
    turns = [(positions.to("meta"), rows.to("meta")) for positions, rows in plan.turns]
    meta(features, labels.to("meta"), replace(plan, turns=turns, **parts)).backward()  # meta tensors have no values


def test_features_that_are_not_finite_move_nothing():
    oim = OIMLoss(4, 3, 2)
    oim(F.normalize(torch.randn(3, 4)), torch.tensor([1, 2, -1]))
    before = [buffer.clone() for buffer in oim.buffers()]
    oim(torch.tensor([[float("nan")] * 4, [1.0, 0, 0, 0]]), torch.tensor([1, -1]))
    assert all(torch.equal(old, new) for old, new in zip(before, oim.buffers(), strict=True))


def test_eval_mode_moves_nothing_and_the_scalar_counts():
    features, labels = F.normalize(torch.randn(4, 4)), torch.tensor([1, 2, 3, -1])
    losses = []
    for scalar in (10.0, 30.0):
        oim = OIMLoss(4, 3, 2, scalar=scalar)
        oim.lut.copy_(F.normalize(torch.eye(3, 4) + 0.1))
        oim.eval()
        losses.append(oim(features, labels).item())
        assert not oim.cq.any()
    logits = features[:3] @ torch.cat([oim.lut, oim.cq]).T
    expected = [F.cross_entropy(scalar * logits, torch.arange(3)).item() for scalar in (10, 30)]
    assert losses == pytest.approx(expected, rel=1e-5)


def test_a_table_without_identities_cannot_learn():
    with pytest.raises(ValueError, match="set MODEL.OIM.NUM_IDS"):
        OIMLoss(4, 0, 2)(torch.zeros(1, 4), torch.tensor([1]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="n x 4"):
        OIMLoss(4, 3, 2)(torch.zeros(2, 5), torch.tensor([1, 2]))
