"""How fast a GPU could be: NVIDIA's dense peaks, by the name that the driver gives and the precision that is trained in."""

import re
from typing import Literal, NamedTuple

PrecisionName = Literal["fp32", "bf16", "fp16", "fp64"]


class Peak(NamedTuple):
    """TFLOP/s of one GPU at its boost clock: tensor cores with float32 sums, no sparsity. None where it has no such cores.

    Attributes:
        fp16: float16.
        bf16: bfloat16.
        fp32: TensorFloat-32, in which cuDNN computes convolutions in float32 by default; before Ampere plain float32.
    """

    fp16: float
    bf16: float | None
    fp32: float


# Each from NVIDIA's data sheet of the product (nvidia.com), of GeForce from the white paper of its architecture (GA102, AD102).
# Where only figures with 2:4 sparsity are given, half of them. By the whole name in lower case, without the maker's words.
_PEAKS: dict[str, Peak] = {
    r"gb200": Peak(2500, 2500, 1250),
    r"b200": Peak(2250, 2250, 1125),
    r"h200 nvl": Peak(835.5, 835.5, 417.5),
    r"(h200|gh200( .+)?|h100 80gb hbm3|h100 sxm.*|h800)": Peak(989.5, 989.5, 494.5),
    r"h100 nvl": Peak(835.5, 835.5, 417.5),
    r"(h100|h800) pcie": Peak(756.5, 756.5, 378),
    r"(a100|a800)([- ].+)?": Peak(312, 312, 156),
    r"a40([- ].+)?": Peak(149.7, 149.7, 74.8),
    r"a30([- ].+)?": Peak(165, 165, 82),
    r"a10g": Peak(70, 70, 35),
    r"a10": Peak(125, 125, 62.5),
    r"rtx a6000": Peak(154.8, 154.8, 77.4),
    r"rtx 6000 ada generation": Peak(364.2, 364.2, 182.1),
    r"l40s": Peak(362.05, 362.05, 183),
    r"l40": Peak(181.05, 181.05, 90.5),
    r"l4": Peak(121, 121, 60),
    r"rtx 4090": Peak(165.2, 165.2, 82.6),
    r"rtx 3090": Peak(71, 71, 35.6),
    r"v100s-pcie-.+": Peak(130, None, 16.4),
    r"v100-sxm2-.+": Peak(125, None, 15.7),
    r"v100-pcie-.+": Peak(112, None, 14),
    r"t4": Peak(65, None, 8.1),
}
_MAKERS_WORDS = re.compile(r"^(nvidia |tesla |geforce )*")


def peak_flops(device_name: str, precision: PrecisionName) -> float | None:
    """Return the FLOP/s that one GPU could reach, or None where that is not known here: another GPU, a slice of one (MIG), a CPU.

    Args:
        device_name: as torch.cuda.get_device_name tells it.
        precision: what is trained in, "auto" decided.
    """
    name = _MAKERS_WORDS.sub("", device_name.lower())
    if " mig " in f"{name} " or precision == "fp64":
        return None
    for pattern, peak in _PEAKS.items():
        if re.fullmatch(pattern, name):
            teraflops = {"fp16": peak.fp16, "bf16": peak.bf16, "fp32": peak.fp32}[precision]
            return None if teraflops is None else teraflops * 1e12
    return None
