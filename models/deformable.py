"""Deformable convolutions that predict their own offsets (Dai et al., ICCV 2017; version 2: Zhu et al., CVPR 2019)."""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import DeformConv2d, deform_conv2d

TAPS = 9


class DeformableConv(DeformConv2d):
    """A 3 x 3 convolution that samples its input at learned offsets, B x C x h x w to B x C' x h' x w'.

    The ordinary convolution `conv_offset` gives each tap (row by row) at each position an offset, y then x, in cells of
    the map; with `modulated` (version 2) also the logit of a factor in (0, 1). Weights begin as torchvision's, biases
    and `conv_offset` at zero, so that a modulated convolution begins with factors of 0.5.

    Args:
        in_channels: C.
        out_channels: C'.
        modulated: version 2.
        stride: h / h'.
        bias: whether the convolution itself has one.
    """

    def __init__(self, in_channels: int, out_channels: int, modulated: bool, stride: int = 1, bias: bool = False):
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=bias)
        self.conv_offset = nn.Conv2d(in_channels, (3 if modulated else 2) * TAPS, 3, stride, padding=1)
        self.modulated = modulated
        for parameter in (self.bias, self.conv_offset.weight, self.conv_offset.bias):
            if parameter is not None:
                nn.init.zeros_(parameter)

    def sampling(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Offsets B x 18 x h' x w' and, where it is modulated, factors B x 9 x h' x w', float32 in every precision."""
        offsets, logits = self.conv_offset(x).float().tensor_split([2 * TAPS], dim=1)
        return offsets, logits.sigmoid() if self.modulated else None

    def forward(self, x: Tensor) -> Tensor:
        """The output, in the type of `x`; torchvision samples in float32 alone on CPUs."""
        offsets, factors = self.sampling(x)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(x.device.type, enabled=False):
            output = deform_conv2d(
                x.float(), offsets, self.weight.float(), bias, self.stride, self.padding, mask=factors
            )
        return output.to(x.dtype)


def deform_stages(network: nn.Module) -> None:
    """Make the second convolution of each block of a ResNet's layer2, layer3 and layer4 a modulated deformable one."""
    for stage in (network.layer2, network.layer3, network.layer4):
        for block in stage:
            plain = block.conv2
            block.conv2 = DeformableConv(plain.in_channels, plain.out_channels, modulated=True, stride=plain.stride[0])
            block.conv2.weight = plain.weight


def stride_in_first_convolution(network: nn.Module) -> None:
    """Give a ResNet of bottlenecks the strides of its Caffe version, whose blocks halve the map by their 1 x 1."""
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
