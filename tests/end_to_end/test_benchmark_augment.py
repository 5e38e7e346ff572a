"""`python -m src.benchmark augment`: what it tells, and what it refuses."""

import json


def test_every_kind_is_measured_beside_torchvision_and_a_step(run_door):
    done = run_door("augment", "pairs=2", "images=2", "size=32", module="src.benchmark")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["benchmark"], result["pairs"], result["images"], result["size"]) == ("augment", 2, 2, 32)
    assert list(result["rows"]) == [
        "rand_augment",
        "trivial_augment_wide",
        "rand_augment_timm",
        "jitter",
        "erasing",
        "mixup",
        "cutmix",
    ]
    for row in result["rows"].values():
        low, high = row["percent_of_step_interval"]
        assert low <= row["percent_of_step"] <= high
    for figures in (result, result["cpu_time"]):
        assert figures["step_us"] > figures["torchvision_us"] > 0
        assert figures["rand_augment_to_torchvision"] > 0
    assert "rand_augment" in done.stderr


def test_unknown_options_are_refused(run_door):
    done = run_door("augment", "image=3", "size=1", module="src.benchmark")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in ("image", "size", "is not pairs=<number> or images=<number> or size=<number>, of at least 2."):
        assert part in done.stderr
