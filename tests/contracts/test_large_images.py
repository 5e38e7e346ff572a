"""Pictures of 6,000 pixels, as they come from cameras, in every engine, at three sizes, for training and evaluation."""

import pytest

from src.batch import BoxResize, ResizeCentreCrop
from src.data.plan import whole_images
from tests.contracts.engines import folder_of, plan_of
from tests.contracts.test_engine import check
from tests.pictures import encode

SHAPES = {"jpeg": (6000, 700), "progressive": (500, 6000), "cmyk": (6000, 300), "grey": (6000, 400)}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    return folder_of(root / "train", {f"ant/{kind}.JPEG": encode(kind, *SHAPES[kind]) for kind in SHAPES}, root / "cache")


@pytest.mark.parametrize("size", [160, 224, 288])
def test_large_pictures_are_those_of_a_torchvision_recipe(large, build_engine, size):
    engine = build_engine(large)
    boxes = [plan_of(large, range(4), seed=seed) for seed in range(3)]
    check(large, engine, boxes, BoxResize(size, "bilinear"))
    check(large, engine, [whole_images(boxes[0].ids, large.sizes)], ResizeCentreCrop(size * 8 // 7, size, "bilinear"))
