"""Sharpness-aware steps equal the paper's rule written out, and leave everything but the gradient as it was."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

from src.training.sam import NoSam, Sam

STEPS, RHO = 50, 0.05


def small_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 5, (16,), generator=generator)
    return (torch.randn(16, 3, 8, 8, generator=generator) + 0.3 * labels.view(-1, 1, 1, 1)).to(dtype), labels


def backward(model: nn.Module, step: int, scale: float = 1.0) -> Tensor:
    images, labels = batch(step, next(model.parameters()).dtype)
    loss = functional.cross_entropy(model(images), labels)
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if parameter.grad is None else parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, fused=True),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.003, fused=True),
}


@pytest.mark.parametrize("every_steps", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_steps_equal_the_two_step_rule_written_out(name: str, every_steps: int) -> None:
    """In float64, both following their own gradients: within 1e-10. The twin's second pass runs on a copy, so its norms rest."""
    model, plain = small_model(torch.float64), small_model(torch.float64)
    optimizer, reference = OPTIMIZERS[name](model), OPTIMIZERS[name](plain)
    sam = Sam(RHO, every_steps)
    for step in range(STEPS):
        backward(model, step)
        if sam.is_due(step):
            with sam.climbed(model):
                backward(model, step)
        optimizer.step()
        optimizer.zero_grad()

        backward(plain, step)
        if step % every_steps == 0:
            uphill = copy.deepcopy(plain)
            steepness = sum(float((p.grad**2).sum()) for p in plain.parameters() if p.grad is not None) ** 0.5
            for there, here in zip(uphill.parameters(), plain.parameters(), strict=True):
                assert here.grad is not None
                there.data = here.data + RHO * here.grad / (steepness + 1e-12)
                there.grad = None
            backward(uphill, step)
            for there, here in zip(uphill.parameters(), plain.parameters(), strict=True):
                here.grad = there.grad
        reference.step()
        reference.zero_grad()

        theirs = plain.state_dict()
        for key, tensor in model.state_dict().items():
            assert torch.allclose(tensor.double(), theirs[key].double(), rtol=1e-10, atol=1e-10), (step, key)


def test_it_is_no_plain_training() -> None:
    ends = []
    for sam in (Sam(RHO, 1), Sam(RHO, 2), NoSam()):
        model = small_model()
        optimizer = OPTIMIZERS["sgd"](model)
        for step in range(10):
            backward(model, step)
            if sam.is_due(step):
                with sam.climbed(model):
                    backward(model, step)
            optimizer.step()
            optimizer.zero_grad()
        ends.append(copies(model)["0.weight"])
    assert all((ends[i] - ends[j]).abs().max() > 1e-4 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_every_kth_step_from_the_first_on() -> None:
    assert [step for step in range(8) if Sam(RHO, 3).is_due(step)] == [0, 3, 6]
    assert all(Sam(RHO, 1).is_due(step) for step in range(8))
    assert not any(NoSam().is_due(step) for step in range(8))


def test_inside_it_stands_at_the_distance_rho_uphill_without_gradients() -> None:
    model = small_model()
    loss = backward(model, 0)
    before, slope = copies(model), gradients(model)
    with Sam(RHO, 1).climbed(model):
        moved = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
        assert all(parameter.grad is None for parameter in model.parameters())
        assert torch.stack([move.norm() for move in moved.values()]).norm().item() == pytest.approx(RHO, rel=1e-5)
        for name, move in moved.items():
            gradient = slope[name]
            assert gradient is not None
            assert functional.cosine_similarity(move.flatten(), gradient.flatten(), dim=0) > 0.9999
        assert backward(model, 0) > loss


def test_outside_every_bit_is_back_and_the_gradients_are_those_from_inside() -> None:
    model = small_model()
    backward(model, 0)
    after_first_pass = copies(model)  # BatchNorm has followed the first pass
    with Sam(RHO, 1).climbed(model):
        backward(model, 0)
        uphill = gradients(model)
    assert_equal(copies(model), after_first_pass)
    assert int(model.state_dict()["1.num_batches_tracked"]) == 1
    outside = gradients(model)
    for name, gradient in uphill.items():
        assert gradient is not None
        assert outside[name] is not None
        assert torch.equal(gradient, outside[name]), name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6),
        nn.BatchNorm2d(6, momentum=None),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        nn.BatchNorm2d(6, track_running_stats=False),
        nn.BatchNorm2d(6).eval(),
    ],
    ids=["batch", "cumulative", "instance", "without statistics", "frozen"],
)
def test_running_statistics_rest_and_the_batchs_own_are_used_as_before(norm: nn.Module) -> None:
    model = small_model()
    model[1] = copy.deepcopy(norm)  # type: ignore[operator]
    twin = copy.deepcopy(model)
    backward(model, 0)
    before = copies(model)
    with Sam(RHO, 1).climbed(model):
        twin.load_state_dict(copies(model))  # the uphill weights, in a model that nobody shields
        backward(model, 0)
        backward(twin, 0)
    assert_equal(copies(model), before)
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert torch.equal(parameter.grad, other.grad), name


def test_an_exception_inside_leaves_the_model_as_it_was() -> None:
    model = small_model()
    backward(model, 0)
    before = copies(model)
    with pytest.raises(RuntimeError, match="in the second pass"), Sam(RHO, 1).climbed(model):
        backward(model, 0)
        raise RuntimeError("in the second pass")
    assert_equal(copies(model), before)
    model(batch(1)[0])
    assert int(model.state_dict()["1.num_batches_tracked"]) == 2, "the statistics follow again"


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**16])
def test_the_loss_scale_cancels(scale: float) -> None:
    """Bit for bit for powers of two, which are the scales that there are."""
    found = []
    for factor in (1.0, scale):
        model = small_model()
        backward(model, 0, factor)
        with Sam(RHO, 1).climbed(model):
            found.append({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
    assert_equal(*found)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_makes_the_scaler_skip_the_step(bad: float) -> None:
    model = small_model()
    optimizer = OPTIMIZERS["sgd"](model)
    scaler = GradScaler("cpu", init_scale=1024.0)
    backward(model, 0, 1024.0)
    model[3].weight.grad[0, 0, 0, 0] = bad  # type: ignore[index, union-attr, operator]
    before = copies(model)
    scaler.scale(torch.zeros(()))  # makes the scaler's own tensors, as a first loss would
    with Sam(RHO, 1).climbed(model):
        backward(model, 0, 1024.0)
    assert_equal(copies(model), before)
    scaler.step(optimizer)
    scaler.update()
    assert_equal(copies(model), before)
    assert scaler.get_scale() == 512.0


def test_parameters_without_a_gradient_stay_where_they_are() -> None:
    class WithAnUnusedHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = small_model(), nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.used(images)
            return logits

    model = WithAnUnusedHead()
    model.used[0].weight.requires_grad_(False)  # type: ignore[index, union-attr, operator]
    backward(model, 0)
    before = copies(model)
    with Sam(RHO, 1).climbed(model):
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        backward(model, 0)
    without = {"used.0.weight", "unused.weight", "unused.bias"}
    assert moved == {name for name, _ in model.named_parameters()} - without
    assert {name for name, gradient in gradients(model).items() if gradient is None} == without
    assert_equal(copies(model), before)


def test_a_flat_place_and_a_model_without_gradients_are_no_harm() -> None:
    model = small_model()
    before = copies(model)
    with Sam(RHO, 1).climbed(model):
        assert_equal(copies(model), before)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with Sam(RHO, 1).climbed(model):
        assert_equal(copies(model), before)


def test_the_layout_of_the_weights_is_kept() -> None:
    model = small_model().to(memory_format=torch.channels_last)
    backward(model, 0)
    before = copies(model)
    strides = [parameter.stride() for parameter in model.parameters()]
    with Sam(RHO, 1).climbed(model):
        backward(model, 0)
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert_equal(copies(model), before)


def test_no_sam_never_climbs() -> None:
    with pytest.raises(AssertionError, match="no step is due"):
        NoSam().climbed(small_model())
