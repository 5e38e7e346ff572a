"""Residual branches that begin at zero (Goyal et al. 2017, arXiv:1706.02677, section 5.1): the last norm's weight of each."""

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from src.models import small_resnet


def set_residual_init(model: nn.Module, *, zero: bool) -> int:
    """Set the last norm's weight of every residual branch of torchvision's ResNets and of SmallResNet, in place.

    Nothing is drawn, so a ResNet equals torchvision's `zero_init_residual=True` of the same seed.

    Args:
        model: on any device, meta included.
        zero: 0, else 1.

    Returns:
        how many branches were set; 0 where the model has no such parts.
    """
    changed = 0
    for module in model.modules():
        if isinstance(module, Bottleneck):
            norm = module.bn3
        elif isinstance(module, BasicBlock | small_resnet.Block):
            norm = module.bn2
        else:
            continue
        if getattr(norm, "weight", None) is not None:
            nn.init.constant_(norm.weight, 0.0 if zero else 1.0)
            changed += 1
    return changed
