"""Where a step's time goes, by a trace, and the verdict: each case made by hand, on a CPU and on a GPU."""

from typing import Any

import pytest

from src.training.step_shares import Shares, shares_of, verdict

MAIN, OTHER, STREAM = (1, 1), (1, 2), (0, 7)


def event(name: str, category: str, begin: float, end: float, where: tuple[int, int] = MAIN) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": category, "ts": begin, "dur": end - begin, "pid": where[0], "tid": where[1]}


def step(begin: float, end: float) -> dict[str, Any]:
    return event("ProfilerStep#5", "user_annotation", begin, end)


def shares(*events: dict[str, Any]) -> Shares:
    found = shares_of(events)
    assert found is not None
    assert found.compute + found.data + found.communication + found.host == pytest.approx(1)
    return found


def test_on_a_cpu_the_loops_own_thread_computes() -> None:
    found = shares(
        step(0, 100),
        event("data", "user_annotation", 0, 30),
        event("aten::decode", "cpu_op", 0, 100, OTHER),  # the loader's thread: no compute of the step
        event("aten::conv", "cpu_op", 30, 70),
        event("aten::inner", "cpu_op", 40, 60),  # within the other: not twice
        event("gloo:all_reduce", "user_annotation", 60, 90, OTHER),
    )
    assert found == pytest.approx((0.4, 0.3, 0.2, 0.1, 0.1, 1e-4))


def test_on_a_gpu_its_kernels_count_and_not_the_hosts_operations() -> None:
    found = shares(
        step(0, 50),
        step(50, 100),
        event("data", "user_annotation", 0, 40),
        event("aten::conv", "cpu_op", 40, 100),
        event("gloo:all_reduce", "user_annotation", 0, 100, OTHER),  # the vote to stop, beside the GPU
        event("sgemm", "kernel", 20, 50, STREAM),
        event("Memcpy HtoD", "gpu_memcpy", 50, 55, STREAM),
        event("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "kernel", 45, 75, (0, 20)),
    )
    assert found == pytest.approx((0.35, 0.2, 0.2, 0.25, 0.1, 5e-5))


def test_evaluation_and_checkpoints_between_steps_do_not_count() -> None:
    found = shares(
        step(0, 100),
        event("aten::conv", "cpu_op", 0, 100),
        event("evaluation", "user_annotation", 20, 60),
        event("checkpoint", "user_annotation", 60, 80),
    )
    assert found.compute == 1
    assert found.step_seconds == pytest.approx(40e-6)


def test_what_lies_outside_of_the_steps_does_not_count() -> None:
    found = shares(step(100, 200), event("aten::conv", "cpu_op", 0, 150), event("data", "user_annotation", 190, 400))
    assert found == pytest.approx((0.5, 0.1, 0, 0.4, 0, 1e-4))


def test_a_trace_without_a_step_says_nothing() -> None:
    assert shares_of([event("aten::conv", "cpu_op", 0, 1), {"ph": "M", "name": "process_name"}]) is None


def of(compute: float, data: float, communication: float, host: float) -> Shares:
    return Shares(compute, data, communication, host, 0.0, 0.1)


@pytest.mark.parametrize(
    ("one", "bound", "advice"),
    [
        (of(0.2, 0.8, 0, 0), "data", "data.engine"),
        (of(0.75, 0.25, 0, 0), "data", "data.workers"),
        (of(0.9, 0.1, 0, 0), "compute", "precision=bf16"),
        (of(0.5, 0.19, 0.19, 0.12), "compute", "compile=true"),
        (of(0.5, 0.1, 0.3, 0.1), "communication", "batch_size"),
        (of(0.3, 0.1, 0.1, 0.5), "host", "compile=true"),
    ],
)
def test_the_verdict_is_what_takes_most_beside_compute_if_it_is_a_fifth(one: Shares, bound: str, advice: str) -> None:
    said = verdict([one])
    assert (said.bound, said.rank) == (bound, 0)
    assert advice in said.advice


def test_ranks_that_wait_for_a_slow_one_say_what_bounds_that_one() -> None:
    waits, slow = of(0.3, 0.0, 0.7, 0.0), of(0.3, 0.65, 0.05, 0.0)
    assert verdict([waits, waits, slow, waits])[:2] == ("data", 2)


def test_where_all_ranks_wait_it_is_communication() -> None:
    assert verdict([of(0.3, 0.0, 0.7, 0.0), of(0.4, 0.0, 0.6, 0.0)])[:2] == ("communication", 1)
