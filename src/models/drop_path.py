"""Stochastic depth (Huang et al. 2016, arXiv:1603.09382): in training, each sample skips each residual branch at random.

The rate falls linearly from the last block's to 0 at the first: block l of L has rate * l / (L - 1), the stem not counted, as in
timm's ResNets and in torchvision's ConvNeXt, Swin and MaxViT. A kept branch is divided by the chance to be kept, so that nothing is
scaled in evaluation. The draws come from torch's global generator, a Bernoulli number a row, in the blocks' order.
"""

from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import StochasticDepth

from src.models import small_resnet
from src.models.mixing_in import mix_in


def set_drop_path(model: nn.Module, rate: float) -> int:
    """Set the rates of a model with torchvision's stochastic depth, or give it to torchvision's ResNets and SmallResNet, in place.

    torchvision's EfficientNet keeps its own rule, rate * l / L, so that a rate means what `stochastic_depth_prob` means there.

    Args:
        model: on any device, meta included. The names in its state dict stay.
        rate: the last block's, in [0, 1).

    Returns:
        how many layers have a rate now; 0 where the model has no such parts.
    """
    own = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    if own:
        return _rescale(own, rate * (len(own) - 1) / len(own) if isinstance(model, EfficientNet) else rate)
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck | small_resnet.Block)]
    for index, block in enumerate(blocks):
        if isinstance(block, BasicBlock | Bottleneck):
            mix_in(block, DroppedBottleneck if isinstance(block, Bottleneck) else DroppedBasicBlock)
        block.drop_path = StochasticDepth(rate * index / max(1, len(blocks) - 1), "row")
    return len(blocks)


def _rescale(layers: list[nn.Module], last: float) -> int:
    """Multiply all rates so that the largest becomes `last`: they are linear in the depth already."""
    rates = [float(layer.p) for layer in layers if isinstance(layer.p, float | int)]
    largest = max(rates)
    if len(rates) < len(layers) or largest == 0:
        return 0
    for layer, own in zip(layers, rates, strict=True):
        layer.p = last * (own / largest)  # type: ignore[assignment]  # a float in torchvision's class
    return len(layers)


class _Block(nn.Module):
    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    relu: nn.Module
    downsample: nn.Module | None
    drop_path: nn.Module


class DroppedBasicBlock(_Block):
    """torchvision's BasicBlock with stochastic depth on its residual branch."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.drop_path(self.bn2(self.conv2(out)))
        out += features if self.downsample is None else self.downsample(features)
        activated: Tensor = self.relu(out)
        return activated


class DroppedBottleneck(_Block):
    """torchvision's Bottleneck with stochastic depth on its residual branch."""

    conv3: nn.Module
    bn3: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.drop_path(self.bn3(self.conv3(out)))
        out += features if self.downsample is None else self.downsample(features)
        activated: Tensor = self.relu(out)
        return activated
