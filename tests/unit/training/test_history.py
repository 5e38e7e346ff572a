"""What a run achieved: the best first, of equals the earlier; and it travels as plain containers."""

import json

from src.training.evaluation import EvalResult
from src.training.history import History


def result(acc1: float) -> EvalResult:
    return EvalResult(1.0, acc1, 90.0, 100, {"split": "val", "images": 100})


def history(*accuracies: float | None) -> History:
    made = History()
    for epoch, acc1 in enumerate(accuracies):
        made.add(step=10 * (epoch + 1), epoch=epoch, result=None if acc1 is None else result(acc1))
    return made


def test_the_best_come_first_and_of_equals_the_earlier() -> None:
    top = history(50.0, 70.0, 60.0, 70.0, None, 10.0).top(3, "resnet18")
    assert [item.step for item in top] == [20, 40, 30]
    assert top[0].name == "resnet18-epoch-001-val_acc1-70.000.ckpt"


def test_fewer_evaluations_than_asked_for_are_all_there_are() -> None:
    assert [item.step for item in history(None, 3.0, None).top(5, "m")] == [20]
    assert history(None).top(5, "m") == []
    assert history(1.0, 2.0).top(0, "m") == []


def test_a_name_for_a_file_is_safe() -> None:
    assert history(12.3456).top(1, "../my model:b")[0].name == ".._my_model_b-epoch-000-val_acc1-12.346.ckpt"


def test_the_last_step_and_result() -> None:
    assert history().last_step == -1
    assert history().last_result() is None
    made = history(50.0, None)
    assert made.last_step == 20
    assert made.last_result() == result(50.0)


def test_it_travels_as_plain_containers() -> None:
    made = history(50.0, None, 60.0)
    copy = History(json.loads(json.dumps(made.epochs)))
    assert copy.epochs == made.epochs
    assert copy.last_result() == made.last_result()
    assert copy.top(2, "m") == made.top(2, "m")
    copy.add(step=99, epoch=3, result=None)
    assert made.last_step == 30


def test_the_trained_weights_accuracy_is_told_beside_the_averages() -> None:
    trained = EvalResult(1.2, 70.0, 92.0, 100, {"split": "val", "weights": "trained"})
    whole = EvalResult(1.0, 75.0, 93.0, 100, {"split": "val", "weights": "ema"}, trained)
    made = History()
    made.add(step=10, epoch=0, result=whole)
    assert made.last_result() == whole
    entry = made.evaluated()[0]
    assert (entry["val/acc1"], entry["val/trained_acc1"], entry["val/trained_acc5"], entry["val/trained_loss"]) == (75, 70, 92, 1.2)
    assert "val/trained_acc1" not in history(50.0).epochs[0]
