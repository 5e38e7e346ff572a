"""BlurPool (Zhang 2019, arXiv:1904.11486): a low-pass filter before what leaves out pixels.

The filter is timm's: [1, 2, 1] x [1, 2, 1] / 16. Two rules for where it goes:

- `convs` is ffcv-imagenet's: before every Conv2d with a stride above 1 and at least 16 input channels, whatever its kernel.
- `convs_and_max_pool` is Composer's default: the same, and a max-pool takes its maxima at stride 1, blurs them, and then strides.

Both projects pad the blur with zeros, so that an image's border darkens slightly, and so do we; timm's own models reflect.
"""

from timm.layers import BlurPool2d
from torch import Tensor, nn
from torch.nn import functional

from src.models.mixing_in import mix_in

_MIN_CHANNELS = 16  # of both projects: it leaves the stem alone, which sees pixels


def blur(model: nn.Module, *, max_pools: bool) -> int:
    """Put the blur before strided convolutions, in place; the names in the state dict stay.

    A max-pool changes at any stride (as in Composer), but only where its class is `nn.MaxPool2d` itself: subclasses pad otherwise.

    Args:
        model: any; on any device, meta included.
        max_pools: blur max-pools too.

    Returns:
        how many layers were changed.
    """
    changed = 0
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d) and max(module.stride) > 1 and module.in_channels >= _MIN_CHANNELS:
            mix_in(module, BlurredInput)
        elif max_pools and type(module) is nn.MaxPool2d and not module.return_indices:
            mix_in(module, BlurredMaxima)
        else:
            continue
        # Not persistent: a state dict neither holds it nor misses it.
        module.blur = BlurPool2d(filt_size=3, stride=1)
        changed += 1
    return changed


class BlurredInput(nn.Module):
    """For a strided convolution."""

    blur: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        """Blur (N, C, H, W), then convolve as before."""
        convolved: Tensor = super().forward(_low_pass(features, self.blur, stride=1))
        return convolved


class BlurredMaxima(nn.Module):
    """For a max-pool. `ceil_mode` has no meaning for maxima at stride 1, and the blur rounds its output's size down."""

    blur: nn.Module
    kernel_size: int | tuple[int, int]
    stride: int | tuple[int, int]
    padding: int | tuple[int, int]
    dilation: int | tuple[int, int]

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W'): maxima of every window, blurred, every stride-th."""
        maxima = functional.max_pool2d(features, self.kernel_size, 1, self.padding, self.dilation)
        return _low_pass(maxima, self.blur, self.stride)


def _low_pass(features: Tensor, blur: nn.Module, stride: int | tuple[int, int]) -> Tensor:
    # timm's layer pads in an operation of its own, a copy of all features; the convolution pads for nothing.
    channels, kernel = features.shape[1], blur.filt
    assert isinstance(kernel, Tensor)
    return functional.conv2d(features, kernel.expand(channels, 1, 3, 3), None, stride, 1, 1, channels)
