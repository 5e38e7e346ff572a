"""The stock peers of the loader benchmark, set up as their own documentation does, for the task that our engines do.

That is: shuffled, a random resized crop (area 8 to 100 %, ratio 3/4 to 4/3), antialiased where the library can, a flip for every
second image, full batches of uint8 on the CPU. Where a library leaves a choice, the faster one is taken. Each makes labels, too.
"""

import random
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from src.loader_benchmark.catalogue import Task

_SCALE, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


class Peer:
    """Anything that can be iterated again and again, and gives (images, labels)."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader

    def epoch(self) -> Iterator[Tensor]:
        """Yield an epoch's images."""
        for batch in self._loader:
            yield batch[0]

    def close(self) -> None:
        """End the worker processes."""
        self._loader = []


def build_peer(task: Task) -> "Peer | DaliPeer":
    """Build a peer by its name. Imports its library, and no other peer's."""
    match task.name:
        case "ffcv-loader" | "ffcv-loader-half-raw" | "ffcv-loader-raw":
            return Peer(_ffcv(task))
        case "dali-pipeline":
            return DaliPeer(task, antialiased=True)
        case "dali-pipeline-aliased":
            return DaliPeer(task, antialiased=False)
        case "torchvision-dataloader":
            return Peer(_torchvision(task))
        case "torchvision-v2-dataloader":
            return Peer(_torchvision_v2(task))
        case "timm-loader":
            return Peer(_timm(task))
        case _:
            return Peer(SpdlPeer(task))


def _ffcv(task: Task) -> Any:
    """Use FFCV's ImageNet example, without what needs a GPU."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    size = (task.image_size, task.image_size)
    image = [RandomResizedCropRGBImageDecoder(size, scale=_SCALE, ratio=_RATIO), RandomHorizontalFlip(), ToTensor(), ToTorchImage()]
    repeated = task.repeats > 1  # QUASI_RANDOM cannot show a sample twice
    return Loader(
        str(task.data),
        batch_size=task.batch,
        num_workers=task.workers,
        order=OrderOption.RANDOM if repeated else OrderOption.QUASI_RANDOM,
        indices=_epoch_of(np.arange(task.images), task) if repeated else None,
        os_cache=True,
        drop_last=True,
        pipelines={"image": image, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )


class DaliPeer:
    """DALI's own reader, fused decoding and cropping, resize and flip. Its reader goes on from epoch to epoch."""

    def __init__(self, task: Task, *, antialiased: bool) -> None:
        from nvidia.dali import fn, pipeline_def, types

        @pipeline_def(batch_size=task.batch, num_threads=task.workers, device_id=None)  # type: ignore[untyped-decorator]
        def training() -> Any:
            jpegs, labels = fn.readers.file(file_root=str(task.data), random_shuffle=True, name="reader")
            images = fn.decoders.image_random_crop(
                jpegs, device="cpu", output_type=types.RGB, random_area=_SCALE, random_aspect_ratio=_RATIO
            )
            images = fn.resize(
                images,
                size=(task.image_size, task.image_size),
                interp_type=types.INTERP_TRIANGULAR if antialiased else types.INTERP_LINEAR,
                antialias=antialiased,
            )
            return fn.flip(images, horizontal=fn.random.coin_flip(probability=0.5)), labels

        self._batches, self._pipeline = task.batches, training()
        self._pipeline.build()

    def epoch(self) -> Iterator[Tensor]:
        """Yield the pipeline's own memory, without the copy that its PyTorch iterator would make."""
        for _ in range(self._batches):
            images, _ = self._pipeline.run()
            yield from_dlpack(images.as_tensor()).permute(0, 3, 1, 2)

    def close(self) -> None:
        """Free the pipeline."""
        self._pipeline = None


def _epoch_of(ids: Any, task: Task) -> Any:
    """Repeat the ids to one epoch's length: full batches, none too many."""
    return np.resize(ids, task.batches * task.batch)


def _folder(task: Task, **options: Any) -> Any:
    """Open torchvision's ImageFolder, an epoch long."""
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(task.data), **options)
    if task.repeats > 1:
        dataset.samples = [dataset.samples[number] for number in _epoch_of(np.arange(len(dataset.samples)), task)]
        dataset.targets = [label for _, label in dataset.samples]
    return dataset


def _data_loader(dataset: Any, task: Task) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(
        dataset, batch_size=task.batch, shuffle=True, drop_last=True, num_workers=task.workers, persistent_workers=True
    )


def _torchvision(task: Task) -> Any:
    """Use the recipe of torchvision's own training reference with Pillow, ending in uint8."""
    from torchvision import transforms

    steps = [
        transforms.RandomResizedCrop(task.image_size, scale=_SCALE, ratio=_RATIO),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ]
    return _data_loader(_folder(task, transform=transforms.Compose(steps)), task)


def _torchvision_v2(task: Task) -> Any:
    """Use torchvision's v2 transforms on tensors, decoded by its own libjpeg-turbo."""
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(task.image_size, scale=_SCALE, ratio=_RATIO, antialias=True), v2.RandomHorizontalFlip()]
    loader = partial(decode_image, mode=ImageReadMode.RGB)
    return _data_loader(_folder(task, loader=loader, transform=v2.Compose(steps)), task)


def _timm(task: Task) -> Any:
    """Use timm's create_loader without the colour jitter that it adds by default; its prefetcher normalises, on a CPU too."""
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(task.data))
    if task.repeats > 1:
        samples = dataset.reader.samples
        dataset.reader.samples = [samples[number] for number in _epoch_of(np.arange(len(samples)), task)]
    return create_loader(
        dataset,
        (3, task.image_size, task.image_size),
        task.batch,
        is_training=True,
        scale=_SCALE,
        ratio=_RATIO,
        hflip=0.5,
        color_jitter=0.0,
        interpolation="bilinear",
        num_workers=task.workers,
        use_prefetcher=True,
        device=torch.device("cpu"),
        persistent_workers=True,
    )


class SpdlPeer:
    """SPDL's image loading: threads that demux, decode, crop, scale and flip by FFmpeg, and a stage that makes batches."""

    def __init__(self, task: Task) -> None:
        import spdl.io
        from spdl.pipeline import PipelineBuilder

        self._io, self._builder, self._task = spdl.io, PipelineBuilder, task
        classes = sorted(folder for folder in task.data.iterdir() if folder.is_dir())
        files = [(str(file), label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir())]
        self._files = [files[number] for number in _epoch_of(np.arange(len(files)), task)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Build an epoch's pipeline and run it."""
        workers = self._task.workers
        random.shuffle(self._files)
        pipeline = (
            self._builder()
            .add_source(self._files)
            .pipe(self._decode, concurrency=workers)
            .aggregate(self._task.batch, drop_last=True)
            .pipe(self._collate)
            .add_sink(3)
            .build(num_threads=workers)
        )
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    def _decode(self, item: tuple[str, int]) -> tuple[Any, int]:
        path, label = item
        packets = self._io.demux_image(path)
        x, y, width, height = _random_box(packets.width, packets.height)
        flip = "hflip," if random.random() < 0.5 else ""
        scale = f"scale={self._task.image_size}:{self._task.image_size}:flags=bilinear"  # FFmpeg's bilinear is antialiased
        filters = f"crop={width}:{height}:{x}:{y}:exact=1,{scale},{flip}format=pix_fmts=rgb24"
        return self._io.decode_packets(packets, filter_desc=filters), label

    def _collate(self, items: list[tuple[Any, int]]) -> tuple[Tensor, Tensor]:
        buffer = self._io.convert_frames([frames for frames, _ in items])
        return self._io.to_torch(buffer).permute(0, 3, 1, 2), torch.tensor([label for _, label in items])


def _random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Draw x, y, width, height by torchvision's law."""
    low, high = np.log(_RATIO)
    for _ in range(10):
        area = width * height * random.uniform(*_SCALE)
        ratio = float(np.exp(random.uniform(low, high)))
        box_width, box_height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < box_width <= width and 0 < box_height <= height:
            return random.randint(0, width - box_width), random.randint(0, height - box_height), box_width, box_height
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side
