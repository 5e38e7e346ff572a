"""The CIFAR ResNet (He et al. 2015, arXiv:1512.03385, section 4.2), for images of about 32 px."""

from torch import Tensor, nn
from torch.nn import functional


class SmallResNet(nn.Module):
    """A 3x3 stem, three stages of n blocks at widths w, 2w, 4w, and a linear head. Depth is 6n + 2.

    Unlike the paper's, shortcuts that change the shape are 1x1 convolutions with a norm, as in torchvision.
    """

    def __init__(self, *, depth: int, width: int, num_classes: int, stem_stride: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv3x3(3, width, stem_stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(channels, width << stage, stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, K)."""
        features = self.blocks(self.stem(images))
        logits: Tensor = self.fc(functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3x3(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out)
        self.conv2, self.bn2 = _conv3x3(channels_out, channels_out), nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))
        self.drop_path: nn.Module = nn.Identity()  # src/models/drop_path.py puts stochastic depth here

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        out = functional.relu(self.bn1(self.conv1(features)), inplace=True)
        out = self.drop_path(self.bn2(self.conv2(out))) + self.shortcut(features)
        return functional.relu(out, inplace=True)


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
