"""Backbones: where they are cut, and where their weights come from."""

import urllib.error

import pytest
import torch
import torchvision

from models.backbones import BACKBONES, STRIDE, build_backbone


@pytest.mark.parametrize("name", BACKBONES)
def test_stem_and_tail_are_the_whole_network_up_to_its_head(name):
    backbone = build_backbone(name)
    backbone.stem.eval(), backbone.tail.eval()
    res4 = backbone.stem(torch.rand(1, 3, 64, 96))
    res5 = backbone.tail(res4)
    assert res4.shape == (1, backbone.stem_channels, 64 // STRIDE, 96 // STRIDE)
    assert res5.shape == (1, backbone.tail_channels, 2, 3)
    whole = BACKBONES[name].factory(weights=None)
    heads = ("fc.", "classifier.")
    body = [p for key, p in whole.state_dict().items() if not key.startswith(heads)]
    parts = [*backbone.stem.state_dict().values(), *backbone.tail.state_dict().values()]
    assert [p.shape for p in parts] == [p.shape for p in body]


def test_weights_from_a_file_are_those_of_the_network(tmp_path):
    net = torchvision.models.resnet18(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("resnet18", str(tmp_path / "weights.pth"))
    backbone.stem.eval(), backbone.tail.eval()
    image = torch.rand(1, 3, 64, 64)
    logits = net.fc(backbone.tail(backbone.stem(image)).mean((2, 3)))
    torch.testing.assert_close(logits, net(image))


def test_each_tail_is_a_copy_of_its_own():
    backbone = build_backbone("resnet18")
    one, other = backbone.new_tail(), backbone.new_tail()
    assert torch.equal(one.layer4[0].conv1.weight, other.layer4[0].conv1.weight)
    torch.nn.init.zeros_(one.layer4[0].conv1.weight)
    assert other.layer4[0].conv1.weight.any()


def test_a_failed_download_is_one_sentence_that_names_the_file(monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match=r"put https://\S+/(resnet18-\w+\.pth) at \S+/checkpoints/\1"):
        build_backbone("resnet18", "imagenet")


def test_wrong_names_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'resnet5' is not one of resnet18"):
        build_backbone("resnet5")
    with pytest.raises(FileNotFoundError, match="no backbone weights at"):
        build_backbone("resnet18", str(tmp_path / "none.pth"))
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="do not fit backbone resnet18"):
        build_backbone("resnet18", str(tmp_path / "other.pth"))
    (tmp_path / "damaged.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"damaged.pth is damaged, or is not a file of backbone weights"):
        build_backbone("resnet18", str(tmp_path / "damaged.pth"))
    for content in ([1], {1: torch.zeros(1)}):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match=r"odd.pth holds no backbone weights: set MODEL.BACKBONE.WEIGHTS"):
            build_backbone("resnet18", str(tmp_path / "odd.pth"))
