"""The learning-rate search with a run: it steps as training does, and leaves the run as it was, bit for bit."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.batch import Batch, DataError
from src.config.lr_finder import LrRange
from src.lr_search import search
from src.training.loop import fit, train_step
from src.training.lr_curve import Curve, lr_of
from src.training.run import Run
from tests.training.conftest import NET, SMALL, differing

MakeRun = Callable[..., Any]
SHORT = LrRange(1e-4, 1.0, 6)
TO_NAN = LrRange(1e-3, 1e30, 30)
VARIANTS = {
    "sgd": ["optim=sgd"],
    "adam": ["optim=adam", "average=ema"],
    "sf_sgd": ["optim=sf_sgd"],
    "sf_adamw": ["optim=sf_adamw"],
    "lamb, accumulated": ["optim=lamb", "max_local_batch_size=16"],
    "lars": ["optim=lars"],
    "rmsprop, swa": ["optim=rmsprop", "average=swa", "average.swa_start_epoch=0"],
    "sam": ["optim=sam"],
    "fp16, clipped": ["optim=sgd", "precision=fp16", "max_grad_norm=1.0"],
    "bf16, mixed": ["optim=sgd", "precision=bf16", "augment=mix"],
    "layer decay": ["optim=adamw", "optim.layer_decay=0.7"],
}


def look(run: Run, *ranges: LrRange, **options: Any) -> list[Curve]:
    return search(run, ranges or [SHORT], smoothing=0.05, diverge=math.inf, **options)


def state_of(run: Run) -> dict[str, Any]:
    """Copy all that training goes on from, and what else a run holds."""
    return copy.deepcopy(
        {
            "parameters": dict(run.model.named_parameters()),
            "buffers": dict(run.model.named_buffers()),
            "modes": [module.training for module in run.model.modules()],
            "gradients": [parameter.grad for parameter in run.model.parameters()],
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "skipped": run.skipped.state(),
            "meter": run.meter.state(),
            "average": run.average.state(),
            "random": torch.get_rng_state(),
            "rates": [run.lr_at(step) for step in range(run.total_steps)],
            "step": run.step,
        }
    )


def train(run: Run, steps: int) -> None:
    batches = run.epoch_batches()
    for _ in range(steps):
        train_step(run, batches)
        run.step += 1


@pytest.mark.parametrize("trained", [0, 4])
@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_a_search_changes_nothing_even_if_it_ends_in_nan(make_run: MakeRun, overrides: list[str], trained: int) -> None:
    run, undisturbed = make_run(*overrides), make_run(*overrides)
    for one in (run, undisturbed):
        train(one, trained)
    before, waited = state_of(run), run.clock._waited
    curves = look(run, SHORT, TO_NAN)
    assert len(curves[0].points) == 6
    assert curves[1].ended == "not finite"
    assert differing(state_of(run), before) == []
    assert run.clock._waited == waited
    for one in (run, undisturbed):
        train(one, 3)
    assert differing(state_of(run), state_of(undisturbed)) == []


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("overrides", [["optim=sgd"], ["optim=sgd", "precision=fp16", "max_grad_norm=1.0"], ["optim=sam"]])
@pytest.mark.parametrize("where", ["told", "forward", "optimizer"])
def test_an_exception_anywhere_leaves_the_run_as_it_was(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, overrides: list[str], where: str
) -> None:
    run = make_run(*overrides)
    train(run, 2)
    before, calls = state_of(run), [0]

    def break_at_the_third(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise BrokenError
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(BrokenError):
        if where == "told":
            real: Any = lambda *_: None  # noqa: E731
            look(run, told=break_at_the_third)
        elif where == "forward":
            real = run.model.forward
            patch.setattr(run.model, "forward", break_at_the_third)
            look(run)
        else:
            real = run.optimizer.step
            patch.setattr(run.optimizer, "step", break_at_the_third)
            look(run)
    assert differing(state_of(run), before) == []
    train(run, 2)  # and it can go on: a gradient scaler would refuse to unscale twice


def test_an_image_that_cannot_be_read_reaches_the_caller(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    before = state_of(run)
    real = run.train_batches

    def ends_badly(epoch: int, first: int) -> Iterator[Batch]:
        batches = real(epoch, first)
        yield next(batches)
        raise DataError("train/x.png cannot be decoded")

    run.train_batches = ends_badly
    with pytest.raises(DataError, match=r"x\.png"):
        look(run)
    assert differing(state_of(run), before) == []


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_losses_are_those_of_a_plain_loop_with_these_rates(make_run: MakeRun, momentum: float) -> None:
    run = make_run("optim=sgd", f"optim.momentum={momentum}", "label_smoothing=0.1", "max_grad_norm=0.5", "optim.weight_decay=0.01")
    model = copy.deepcopy(run.model)
    (curve,) = look(run, LrRange(1e-3, 1.0, 25))
    images = run.recorder.seen[:25]
    norms = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()] + [model.fc.bias]
    decaying = [p for p in model.parameters() if all(p is not other for other in norms)]
    groups = [{"params": decaying, "weight_decay": 0.01}, {"params": norms, "weight_decay": 0.0}]
    plain = torch.optim.SGD(groups, lr=0.1, momentum=momentum, fused=True)
    for k, batch in enumerate(images):
        for group in plain.param_groups:
            group["lr"] = 1e-3 * 1000 ** (k / 24) if k < 24 else 1.0
        pixels, labels, _ = run.augment(batch, step=k, slot=k)
        plain.zero_grad()
        loss = nn.functional.cross_entropy(model(pixels), labels, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(list(model.parameters()), 0.5)
        plain.step()
        assert curve.points[k].loss == pytest.approx(loss.item(), abs=1e-6), k
        assert curve.points[k].lr == pytest.approx(1e-3 * 1000 ** (k / 24), rel=1e-12)


def test_every_range_begins_from_the_same_state_and_sees_the_same_images(make_run: MakeRun) -> None:
    run, other = make_run(), LrRange(1e-2, 10.0, 7)
    first, second, third = look(run, SHORT, other, SHORT)
    assert first == third
    assert first.points[0].loss == second.points[0].loss
    assert look(run, other) == [second]
    seen = [tuple(batch.plan.ids) for batch in run.recorder.seen]
    assert seen[:6] == seen[6:12]


def test_rates_are_those_of_the_range_in_every_group(make_run: MakeRun) -> None:
    run = make_run("optim=adamw", "optim.layer_decay=0.7")
    used: list[list[float]] = []
    real = run.optimizer.step
    run.optimizer.step = lambda *args: (used.append([group["lr"] for group in run.optimizer.param_groups]), real(*args))[1]
    (curve,) = look(run)
    scales = [group["lr_scale"] for group in run.optimizer.param_groups]
    assert len(set(scales)) > 2
    assert used == [[lr_of(SHORT, k) * scale for scale in scales] for k in range(6)]
    assert [point.lr for point in curve.points] == [lr_of(SHORT, k) for k in range(6)]


def test_a_small_set_is_gone_through_again_and_again_as_epochs(make_run: MakeRun) -> None:
    run = make_run()  # 330 images in batches of 32: 10 steps an epoch
    train(run, 7)
    run.recorder.seen.clear()
    look(run, LrRange(1e-4, 1e-3, 25))
    seen = [batch.plan for batch in run.recorder.seen]
    assert len(seen) >= 25
    expected = []
    for epoch, first in ((0, 7), (1, 0), (2, 0), (3, 0)):
        run.recorder.seen.clear()
        for _ in run.train_batches(epoch, first):
            pass
        expected += [batch.plan for batch in run.recorder.seen]
    for own, planned in zip(seen[:25], expected[:25], strict=True):
        assert (own.ids == planned.ids).all() and (own.keys == planned.keys).all()


def test_a_range_ends_where_the_average_is_so_many_times_its_best(make_run: MakeRun) -> None:
    (curve,) = search(make_run("optim=sgd"), [LrRange(1e-3, 1e4, 60)], smoothing=0.3, diverge=2.0)
    averages = [point.average for point in curve.points]
    assert curve.ended == "diverged"
    assert len(averages) < 60
    best = [min(averages[: n + 1]) for n in range(len(averages))]
    assert [average > 2 * least for average, least in zip(averages, best, strict=True)] == [False] * (len(averages) - 1) + [True]


def test_a_loss_that_is_not_finite_ends_a_range_and_is_no_point(make_run: MakeRun) -> None:
    (curve,) = look(make_run("optim=sgd"), TO_NAN)
    assert curve.ended == "not finite"
    assert 0 < len(curve.points) < 30
    assert all(math.isfinite(point.loss) for point in curve.points)


def test_weights_that_are_not_finite_to_begin_with_are_told(make_run: MakeRun) -> None:
    run = make_run()
    with torch.no_grad():
        run.model.fc.weight.fill_(math.nan)
    (curve,) = look(run)
    assert (curve.points, curve.ended) == ((), "not finite")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_searches_near_the_full_one(make_run: MakeRun, precision: str) -> None:
    within = LrRange(1e-4, 0.1, 20)
    (full,), (low,) = look(make_run("precision=fp32"), within), look(make_run(f"precision={precision}"), within)
    assert [point.loss for point in low.points] == pytest.approx([point.loss for point in full.points], abs=0.1)
    assert [point.loss for point in low.points] != [point.loss for point in full.points]


def test_a_run_that_was_searched_trains_to_the_same_weights(make_run: MakeRun) -> None:
    """Through the whole loop: logs, evaluation and the average included."""
    overrides = ("optim=sgd", "average=ema", "epochs=2", "augment=mix", "eval_every_epochs=1")
    weights: list[dict[str, Tensor]] = []
    for searched in (False, True):
        run = make_run(*overrides, base=(*SMALL, *NET))
        if searched:
            look(run, SHORT, TO_NAN)
        fit(run)
        weights.append({name: tensor.clone() for name, tensor in run.model.state_dict().items()})
        assert run.history.last_result() is not None
    assert differing(*weights) == []
