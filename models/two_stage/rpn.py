"""The region proposal network: torchvision's, with the choice of its box loss."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from models.base import Targets
from models.preprocess import ImageBatch
from models.two_stage.boxes import BoxCoder

BOX_LOSSES = {"l1": 0.0, "smooth_l1": 1 / 9}
"""Box loss -> beta of smooth L1. 0 is plain L1, the loss of torchvision 0.4 and of the published results; 1/9 is
torchvision's value since 0.5, from Detectron (sigma 3)."""


class ProposalHead(RPNHead):
    """torchvision's RPN head, whose outputs stay float32 under mixed precision: they become coordinates."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's RPN on one map, with the published or the current box loss.

    Args:
        channels: of the map.
        anchor_sizes: in pixels of the resized image.
        aspect_ratios: height / width of anchors.
        box_loss: a key of `BOX_LOSSES`.
        settings: the other arguments of torchvision's RPN.
    """

    def __init__(
        self, channels: int, anchor_sizes: list[int], aspect_ratios: list[float], box_loss: str, **settings: Any
    ):
        anchors = AnchorGenerator((tuple(anchor_sizes),), (tuple(aspect_ratios),))
        super().__init__(anchors, ProposalHead(channels, anchors.num_anchors_per_location()[0]), **settings)
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        self.beta = BOX_LOSSES[box_loss]

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss over the sampled anchors, both divided by the number of sampled anchors."""
        positive, negative = (torch.where(torch.cat(mask))[0] for mask in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        box_loss = F.smooth_l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], beta=self.beta, reduction="sum"
        )
        class_loss = F.binary_cross_entropy_with_logits(objectness.flatten()[sampled], torch.cat(labels)[sampled])
        return class_loss, box_loss / max(sampled.numel(), 1)

    def propose(
        self, feature_map: Tensor, batch: ImageBatch, targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Boxes n x 4 of each image, in pixels of the resized image, best first, from the map B x C x h x w.

        In train mode the losses `loss_rpn_cls` and `loss_rpn_reg` against the targets' `boxes` come with them.
        """
        # Anchors take the map's dtype: in half precision they would be pixels off.
        proposals, losses = self(ImageList(batch.tensors, batch.sizes), {"res4": feature_map.float()}, targets)
        names = {"loss_objectness": "loss_rpn_cls", "loss_rpn_box_reg": "loss_rpn_reg"}
        return proposals, {names[name]: loss for name, loss in losses.items()}
