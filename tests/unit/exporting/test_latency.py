"""Times beside each other: what is counted, in which order, and that a drift of the machine cancels."""

from src.exporting.latency import describe_cpu, measure


class Machine:
    """A clock that only work moves, and work that slows down as time passes."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now, self.drift, self.order = 0.0, drift, list[str]()

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        self.order.append(name)
        self.now += seconds * (1 + self.drift * len(self.order))


def test_median_and_95th_percentile_are_of_the_counted_rounds_in_milliseconds() -> None:
    machine = Machine()
    times = iter([99.0, *range(1, 21)])  # the first is the warm-up's
    found = measure({"one": lambda: machine.work("one", next(times))}, warm_up=1, rounds=20, clock=machine.clock)["one"]
    assert found.median_ms == 10_500
    assert abs(found.p95_ms - 19_050) < 1e-6  # 1..20: between the 19th and the 20th, at 0.05 of the way
    assert (found.ratio, found.rounds) == (1.0, 20)


def test_calls_take_turns_and_every_other_round_goes_backwards() -> None:
    machine = Machine()
    measure({name: lambda name=name: machine.work(name, 1) for name in "abc"}, warm_up=1, rounds=3, clock=machine.clock)
    assert "".join(machine.order) == "abc" + "cba" + "abc" + "cba"


def test_a_machine_that_slows_down_changes_the_times_and_not_the_ratio() -> None:
    even, tired = Machine(), Machine(drift=0.01)
    ratios, medians = [], []
    for machine in (even, tired):
        calls = {"first": lambda m=machine: m.work("first", 2), "second": lambda m=machine: m.work("second", 1)}
        found = measure(calls, warm_up=2, rounds=100, clock=machine.clock)
        ratios.append(found["second"].ratio)
        medians.append(found["first"].median_ms)
    assert ratios[0] == 0.5
    assert medians[1] > 1.5 * medians[0]
    assert abs(ratios[1] - 0.5) < 0.01


def test_the_cpu_is_told_with_what_int8_needs_of_it() -> None:
    text = "processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\nmodel name\t: Other\n"
    assert describe_cpu(text) == "Some CPU (avx2, avx512_vnni)"
    assert "features unknown" in describe_cpu("")
    assert describe_cpu()
