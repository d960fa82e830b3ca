"""Freezing: which stages and normalisation layers of a backbone do not learn."""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)  # the first: batch and instance norms
NORM_SCOPES = ("none", "stem", "all")


@dataclass(frozen=True)
class FreezePolicy:
    """What of a backbone does not learn.

    Attributes:
        stages: stages whose parameters are frozen, counted from the image; 1 is the first convolution with its
            normalisation, 2 the next block of layers, and so on.
        norm_affine: whose normalisation layers have frozen weights and biases: "none" (beyond `stages`), "stem", or
            "all" (tails too).
        norm_statistics: whose batch norms normalise by their running statistics in training, and leave them as they
            are; the same choices.
    """

    stages: int = 1
    norm_affine: str = "none"
    norm_statistics: str = "none"

    def freeze_parameters(self, stem: nn.Module, tails: list[nn.Module]) -> None:
        """Take gradients off the frozen parameters."""
        for stage in _stages(stem)[: self.stages]:
            stage.requires_grad_(False)
        for norm in _norms(self.norm_affine, stem, tails):
            norm.requires_grad_(False)

    def freeze_statistics(self, stem: nn.Module, tails: list[nn.Module]) -> None:
        """Put the frozen normalisation layers into eval mode; to be called after each `train()`."""
        for norm in _norms(self.norm_statistics, stem, tails):
            norm.eval()


def _norms(scope: str, stem: nn.Module, tails: list[nn.Module]) -> list[nn.Module]:
    roots = {"none": [], "stem": [stem], "all": [stem, *tails]}[scope]
    return [module for root in roots for module in root.modules() if isinstance(module, NORMS)]


def _stages(stem: nn.Module) -> list[nn.Module]:
    """The children with parameters; a first convolution and a normalisation beside it are one stage."""
    children = [child for child in stem.children() if any(True for _ in child.parameters())]
    if len(children) > 1 and isinstance(children[1], NORMS):
        return [nn.ModuleList(children[:2]), *children[2:]]
    return children
