"""The OIM loss against known answers, a plain twin, and its special cases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden.fill import FOLDER

from models import OIMLoss

UNLABELLED_IN_RELEASES = 5555


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


def test_four_steps_give_the_known_answers():
    known = np.load(FOLDER / "oim.npz")
    oim = OIMLoss(16, 12, 6)
    oim.lut.copy_(torch.tensor(known["lut_0"]))
    oim.cq.copy_(torch.tensor(known["cq_0"]))
    for step in range(4):
        features = torch.tensor(known[f"features_{step}"], requires_grad=True)
        labels = torch.tensor(known[f"labels_{step}"])
        loss = oim(features, labels.where(labels != UNLABELLED_IN_RELEASES, -1))
        loss.backward()
        assert loss.item() == pytest.approx(float(known[f"loss_{step}"]), abs=1e-5)
        np.testing.assert_allclose(features.grad, known[f"grad_{step}"], atol=1e-5)
        np.testing.assert_allclose(oim.lut, known[f"lut_{step + 1}"], atol=1e-5)
        np.testing.assert_allclose(oim.cq, known[f"cq_{step + 1}"], atol=1e-5)
        assert oim.header.item() == int(known[f"header_{step + 1}"])


def test_loss_and_gradient_are_those_of_the_people_with_identity_alone():
    oim = OIMLoss(8, 5, 3, scalar=10.0).eval()
    oim.lut.copy_(F.normalize(torch.randn(5, 8)))
    oim.cq.copy_(F.normalize(torch.randn(3, 8)))
    features, labels = F.normalize(torch.randn(20, 8)).requires_grad_(), torch.randint(-1, 6, (20,))
    (gradient,) = torch.autograd.grad(oim(features, labels), features)
    chosen = labels > 0
    plain = F.cross_entropy(10 * features[chosen] @ torch.cat([oim.lut, oim.cq]).T, labels[chosen] - 1)
    torch.testing.assert_close(oim(features, labels), plain)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, features)[0])


@pytest.mark.parametrize("mask_empty", [False, True])
@pytest.mark.parametrize("mean_over", ["labelled", "people"])
def test_empty_rows_and_the_people_that_count_are_chosen(mask_empty, mean_over):
    """Identity 2 and a part of the queue have no row yet; SeqNeXt gives such a row -1, or 1 to its own people."""
    oim = OIMLoss(8, 4, 3, mask_empty=mask_empty, mean_over=mean_over).eval()
    oim.lut.copy_(F.normalize(torch.randn(4, 8)))
    oim.lut[1] = 0
    oim.cq[0] = F.normalize(torch.randn(8), dim=0)
    features, labels = F.normalize(torch.randn(7, 8)), torch.tensor([1, 2, 2, 4, 0, -1, -1])
    losses = []
    for x, label in zip(features, labels.tolist(), strict=True):
        similarities = [(x @ row).item() for row in [*oim.lut, *oim.cq]]
        if mask_empty:
            similarities[1] = 1 if label == 2 else -1
            similarities[5:] = [-1, -1]
        if label > 0:
            losses.append(-(30 * torch.tensor(similarities)).log_softmax(0)[label - 1])
    expected = sum(losses) / (4 if mean_over == "labelled" else 6)
    torch.testing.assert_close(oim(features, labels), expected)


def test_tables_are_updated_as_if_people_came_one_by_one():
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


def test_eval_mode_and_features_that_are_not_finite_update_nothing_and_half_precision_is_computed_in_single():
    oim = OIMLoss(4, 3, 2)
    features, labels = F.normalize(torch.randn(4, 4)).requires_grad_(), torch.tensor([1, 2, 3, -1])
    (oim(features, labels) + oim(features, labels)).backward()  # two passes before a backward are possible
    before = [buffer.clone() for buffer in oim.buffers()]
    oim(torch.tensor([[float("nan")] * 4, [1.0, 0, 0, 0]]), torch.tensor([1, -1]))
    oim.eval()
    rounded = features.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = oim(rounded, labels)
    assert torch.equal(loss, oim(rounded.float(), labels)) and loss.dtype is torch.float32
    assert all(torch.equal(old, new) for old, new in zip(before, oim.buffers(), strict=True))


def test_a_label_beyond_the_table_is_refused():
    for num_ids in (0, 3):
        with pytest.raises(ValueError, match=f"identity 6 is beyond the lookup table's rows, num_ids {num_ids}"):
            OIMLoss(4, num_ids, 2)(torch.zeros(3, 4), torch.tensor([1, 6, -1]))
