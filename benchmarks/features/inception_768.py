"""The Inception-V3 of FID up to ``Mixed_6e``: 768 features, in plain torch.

Architecture of Szegedy et al. 2015 (Rethinking the Inception Architecture, figures 5 and 6) as
the FID network of 2015-12-05 has it: average pools do not count the padding. Names of
parameters are those of pytorch-fid. A distance here is "FID-768", never FID: it is comparable
with no published number.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from cleanfid.resize import build_resizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from benchmarks.features import FeatureSpace, per_image
from benchmarks.registry import find
from wavedp.dp.errors import UserError, one_line

WEIGHTS = "inception-fid-768"


class ConvBN(nn.Module):
    """Convolution without bias, batch norm (eps 1e-3) and ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1):
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        # A stride of 2 goes with no padding everywhere in this network.
        pad = (height // 2, width // 2) if stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, pad, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, inputs, H, W] -> [b, outputs, H', W']``."""
        return F.relu(self.bn(self.conv(x)))


def pool(x: Tensor) -> Tensor:
    """3x3 average of the same size that does not count the padding."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35 px: 1x1, 5x5, double 3x3 and pool, ``pool_features`` + 224 channels."""

    def __init__(self, inputs: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(inputs, 64, 1)
        self.branch5x5_1 = ConvBN(inputs, 48, 1)
        self.branch5x5_2 = ConvBN(48, 64, 5)
        self.branch3x3dbl_1 = ConvBN(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3)
        self.branch_pool = ConvBN(inputs, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, inputs, H, W] -> [b, 224 + pool_features, H, W]``."""
        parts = [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(pool(x)),
        ]
        return torch.cat(parts, 1)


class BlockB(nn.Module):
    """35 to 17 px, 288 to 768 channels."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvBN(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBN(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, 288, 35, 35] -> [b, 768, 17, 17]``."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """17 px: 7x7 in two factors; 768 channels in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = ConvBN(768, 192, 1)
        self.branch7x7_1 = ConvBN(768, width, 1)
        self.branch7x7_2 = ConvBN(width, width, row)
        self.branch7x7_3 = ConvBN(width, 192, column)
        self.branch7x7dbl_1 = ConvBN(768, width, 1)
        self.branch7x7dbl_2 = ConvBN(width, width, column)
        self.branch7x7dbl_3 = ConvBN(width, width, row)
        self.branch7x7dbl_4 = ConvBN(width, width, column)
        self.branch7x7dbl_5 = ConvBN(width, 192, row)
        self.branch_pool = ConvBN(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[b, 768, 17, 17] -> [b, 768, 17, 17]``."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(pool(x))], 1)


class Network(nn.Module):
    """From float images ``[b, 3, 299, 299]`` in [-1, 1) to features ``[b, 768]``."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3)
        self.Conv2d_2a_3x3.conv.padding = (0, 0)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3)
        self.Conv2d_4a_3x3.conv.padding = (0, 0)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return x.mean((2, 3))


def for_inference(network: Network) -> Network:
    """The same function, a third faster on a CPU: norms in the convolutions, channels last."""
    network.eval()
    for module in network.modules():
        if isinstance(module, ConvBN) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    return network.to(memory_format=torch.channels_last)


class Inception768(FeatureSpace):
    """The network with its weights, behind clean-fid's resizing (``clean``) and scaling.

    Args:
        workers: threads that resize.
        batch: images per forward pass.
    """

    weights = (WEIGHTS,)
    label = (
        "Inception-V3 2015-12-05 up to Mixed_6e, spatial mean (768), "
        "Pillow's bicubic to 299 px without rounding"
    )

    def __init__(self, workers: int | None = None, batch: int = 32) -> None:
        super().__init__()
        self._resize = build_resizer("clean")
        self._workers = workers or os.cpu_count() or 1
        self.batch = batch

    def load(self, device: torch.device) -> None:
        """See :class:`FeatureSpace`."""
        path = find(WEIGHTS)
        network = Network()
        try:
            state = {name: value.float() for name, value in load_file(path).items()}
            missing, unexpected = network.load_state_dict(state, strict=False)
        except (RuntimeError, SafetensorError) as error:
            raise UserError(f"{path} does not fit: {one_line(error)}") from error
        wrong = [name for name in missing if not name.endswith("num_batches_tracked")]
        if wrong or unexpected:
            raise UserError(f"{path} does not fit: {(wrong + unexpected)[0]} is not on both sides.")
        self._network = for_inference(network).to(device)

    def extract(self, images: Tensor) -> Tensor:
        """See :class:`FeatureSpace`."""
        resized = per_image(self._resize, images, self._workers)  # channels last already
        features: Tensor = self._network((resized.to(self.device) - 128) / 128)
        return features
