"""What the threads of an engine leave alone: the number of threads with which torch computes in the thread that trains."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import numpy as np, torch
from src.batch import BoxResize
from src.data.engines.torchvision import TorchvisionEngine
from src.data.plan import whole_images
from src.data.sources.synthetic import SyntheticSource
from src.machine import settle_torch

settle_torch(threads=3, deterministic=False)
source = SyntheticSource(count=64, num_classes=2, stored_size=16, split="train")
engine = TorchvisionEngine(source, device=torch.device("cpu"), threads=2, prefetch=2)
inside = []
decode = engine._decode_box
engine._decode_box = lambda *arguments: (inside.append(torch.get_num_threads()), decode(*arguments))[1]
plans = [whole_images(np.arange(start, start + 16), source.sizes) for start in range(0, 64, 16)]
for _ in engine.batches(iter(plans), geometry=BoxResize(16, "bilinear")):
    pass
print(torch.get_num_threads(), set(inside))
engine.close()
print(torch.get_num_threads())
"""


def test_each_decodes_alone_and_the_caller_keeps_its_threads() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["3 {1}", "3", ""]
