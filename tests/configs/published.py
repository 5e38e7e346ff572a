"""The published recipes as a table, written from their publications and not from conf/."""

import math
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """One row of the published recipes."""

    epochs: int
    batch: int
    optimizer: str
    momentum: float | None
    peak_lr: float  # of the whole batch
    weight_decay: float
    decays: str  # all | no norms | no norms and biases
    schedule: str
    by: str
    warmup_epochs: float
    sizes: tuple[int, int, int]  # trained on, evaluated at, resized to before
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    operations: tuple[Any, ...] = ("none",)
    repeats: int = 1
    erased: float = 0.0
    average: tuple[Any, ...] = ("none",)
    interpolation: str = "bilinear"
    loss: tuple[Any, ...] = ("cross_entropy", None, False)
    model: tuple[Any, ...] = ("torchvision", "none", 0.0)
    flip_at_test: bool = False
    ramp: tuple[int, int, int] | None = None  # from px, from epoch, to epoch
    sam: float | None = None


TWO_TO_MINUS_15 = 1 / 32768
A40 = {"epochs": 90, "batch": 1024, "decays": "no norms and biases", "warmup_epochs": 5, "sizes": (176, 224, 256), "smoothing": 0.1}
NONE_OF = "no norms and biases"
TIMM = {
    "batch": 2048,
    "optimizer": "lamb",
    "momentum": None,
    "decays": NONE_OF,
    "schedule": "cosine",
    "by": "epoch",
    "warmup_epochs": 5,
    "cutmix": 1.0,
    "interpolation": "bicubic",
}
COMPOSER = {
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 2.5e-5,
    "decays": "all",
    "schedule": "cosine",
    "by": "step",
    "warmup_epochs": 5,
    "smoothing": 0.1,
    "mixup": 0.2,
    "cutmix": 1.0,
    "operations": ("rand_augment", 2, 9, 0.0),
    "model": ("torchvision", "convs_and_max_pool", 0.0),
}


def ffcv(epochs: int, first: int, last: int) -> Recipe:
    return Recipe(
        *(epochs, 4096, "sgd", 0.9, 1.7, 1e-4, NONE_OF, "triangular", "step", 2, (192, 256, 293), 0.1),
        model=("torchvision", "convs", 0.0),
        flip_at_test=True,
        ramp=(160, first, last),
    )


PUBLISHED = {
    "a40_adam": Recipe(
        **A40, optimizer="adam", momentum=None, peak_lr=1e-3, weight_decay=TWO_TO_MINUS_15, schedule="cosine", by="step"
    ),
    "a40_sf_sgd": Recipe(
        **A40,
        optimizer="sf_sgd",
        momentum=0.9,
        peak_lr=6.0,
        weight_decay=5e-5,
        schedule="constant",
        by="step",
        average=("schedule_free", 102_400),
    ),
    "a40_sgd": Recipe(
        **A40, optimizer="sgd", momentum=0.875, peak_lr=1.0, weight_decay=TWO_TO_MINUS_15, schedule="cosine", by="step"
    ),
    "a40_sam": Recipe(
        **A40, optimizer="sgd", momentum=0.875, peak_lr=1.0, weight_decay=TWO_TO_MINUS_15, schedule="cosine", by="step", sam=0.05
    ),
    "onecycle_50": Recipe(50, 256, "sgd", 0.9, 0.175, 1e-4, "all", "one_cycle", "step", 15, (224, 224, 256)),
    "lightning_100": Recipe(
        *(100, 256, "sgd", 0.9, 0.1, 1e-4, "all", "cosine", "epoch", 0, (224, 224, 256), 0.1, 0.2, 1.0),
    ),
    "composer_90": Recipe(**COMPOSER, epochs=90, batch=512, peak_lr=0.4, sizes=(224, 224, 256), average=("ema_swa", 50, 1, 10)),
    "tv_v1": Recipe(90, 256, "sgd", 0.9, 0.1, 1e-4, "all", "step", "epoch", 0, (224, 224, 256)),
    "tv_v2": Recipe(
        *(600, 1024, "sgd", 0.9, 0.5, 2e-5, "no norms", "cosine", "epoch", 5, (176, 224, 232), 0.1, 0.2, 1.0),
        operations=("trivial_augment_wide",),
        repeats=4,
        erased=0.1,
        # utils.ExponentialMovingAverage of references/classification/train.py: adjust = world_size * batch_size * steps / epochs
        average=("ema", 1 - (1 - 0.99998) * (1024 * 32 / 600), 32, 5),
    ),
    "timm_a1": Recipe(
        **TIMM,
        epochs=600,
        peak_lr=5e-3,
        weight_decay=0.01,
        sizes=(224, 224, math.floor(224 / 0.95)),
        smoothing=0.1,
        mixup=0.2,
        operations=("rand_augment_timm", 2, 7, 0.5),
        repeats=3,
        loss=("bce", None, False),
        model=("timm", "none", 0.05),
    ),
    "timm_a2": Recipe(
        **TIMM,
        epochs=300,
        peak_lr=5e-3,
        weight_decay=0.02,
        sizes=(224, 224, 235),
        mixup=0.1,
        operations=("rand_augment_timm", 2, 7, 0.5),
        repeats=3,
        loss=("bce", 0.2, False),
        model=("timm", "none", 0.05),
    ),
    "timm_a3": Recipe(
        **TIMM,
        epochs=100,
        peak_lr=8e-3,
        weight_decay=0.02,
        sizes=(160, 224, 235),
        mixup=0.1,
        operations=("rand_augment_timm", 2, 6, 0.5),
        loss=("bce", 0.2, False),
        model=("timm", "none", 0.0),
    ),
    "ffcv_16": ffcv(16, 11, 13),
    "ffcv_24": ffcv(24, 17, 20),
    "ffcv_32": ffcv(32, 23, 27),
    "ffcv_40": ffcv(40, 29, 34),
    "ffcv_56": ffcv(56, 41, 48),
    "ffcv_88": ffcv(88, 65, 76),
    "composer_mild": Recipe(
        *(36, 2048, "sgdw", 0.875, 2.048, 5e-4 / 2.048, "all", "cosine", "step", 8, (176, 224, 232), 0.08),
        average=("ema", 100, 20, 0),
        loss=("bce", None, True),
        model=("torchvision", "convs_and_max_pool", 0.0),
        ramp=(88, 14, 29),
    ),
    "nvidia_90": Recipe(
        *(90, 2048, "sgd", 0.875, 8 * 0.256, TWO_TO_MINUS_15, "no norms", "cosine", "epoch", 8, (224, 224, 256), 0.1)
    ),
    "production_4gpu": Recipe(**COMPOSER, epochs=90, batch=512, peak_lr=0.4, sizes=(224, 224, 256), average=("ema_swa", 50, 1, 10)),
    "validation_1h": Recipe(**COMPOSER, epochs=40, batch=256, peak_lr=0.2, sizes=(224, 224, 256), average=("ema_swa", 50, 1, 10)),
    "colab_sanity": Recipe(
        **COMPOSER | {"warmup_epochs": 1}, epochs=3, batch=64, peak_lr=0.05, sizes=(64, 64, 72), average=("ema_swa", 10, 1, 2)
    ),
}
