"""The loop computes what a plain loop computes: 100 steps, every optimizer, bit for bit."""

import math
from typing import Any

import pytest
import schedulefree
import torch
from torch import nn

from src.augment.normalise import Normalise
from src.models.small_resnet import SmallResNet
from src.training.loop import fit

STEPS_PER_EPOCH, EPOCHS = 10, 10
TOTAL, WARMUP = STEPS_PER_EPOCH * EPOCHS, STEPS_PER_EPOCH


def plain_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """The five optimizers, written out. Norms and biases do not decay."""
    no_decay = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()] + [model.fc.bias]
    decay = [p for p in model.parameters() if all(p is not other for other in no_decay)]

    def groups(weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]

    match name:
        case "sgd":
            return torch.optim.SGD(groups(1e-4), lr=0.1, momentum=0.9, fused=True)
        case "adam":
            return torch.optim.Adam(groups(2**-15), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups(0.05), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)
        case "sf_sgd":
            sf_sgd = schedulefree.SGDScheduleFree(groups(5e-5), lr=1.5, momentum=0.9)
            sf_sgd.train()
            return sf_sgd
        case _:
            sf_adamw = schedulefree.AdamWScheduleFree(groups(0.05), lr=2.5e-3, betas=(0.9, 0.999), eps=1e-8)
            sf_adamw.train()
            return sf_adamw


def plain_lr(name: str, peak: float, step: int) -> float:
    if step < WARMUP:
        return peak * (0.01 + 0.99 * step / WARMUP)
    if name.startswith("sf_"):
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (TOTAL - WARMUP)))


@pytest.mark.parametrize(
    ("name", "clip"), [("sgd", None), ("sgd", 0.5), ("adam", None), ("adamw", None), ("sf_sgd", None), ("sf_adamw", None)]
)
def test_a_hundred_steps_equal_a_plain_loop(make_run: Any, name: str, clip: float | None) -> None:
    more = [f"max_grad_norm={clip}"] if clip else []
    run = make_run(f"optim={name}", f"epochs={EPOCHS}", "label_smoothing=0.1", "eval_every_epochs=1", "seed=3", *more)
    fit(run)
    assert run.step == TOTAL

    torch.manual_seed(3)
    model = SmallResNet(depth=8, width=4, num_classes=10, stem_stride=2).to(memory_format=torch.channels_last)
    optimizer = plain_optimizer(name, model)
    peak = optimizer.param_groups[0]["lr"]
    normalise = Normalise(
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        device=torch.device("cpu"),
        dtype=torch.float32,
        memory_format=torch.channels_last,
    )
    batches = [batch for batch in run.recorder.seen if len(batch.labels) == 32]
    per_epoch = len(run.recorder.seen) // EPOCHS  # schedule-free's recalibration takes batches of its own at each epoch's end
    for step in range(TOTAL):
        batch = batches[step // STEPS_PER_EPOCH * per_epoch + step % STEPS_PER_EPOCH]
        for group in optimizer.param_groups:
            group["lr"] = plain_lr(name, peak, step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(normalise(batch.images)), batch.labels, label_smoothing=0.1).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[key]), key
