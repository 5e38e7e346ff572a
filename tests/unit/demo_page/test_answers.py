"""What the page says is what evaluation computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.build import eval_batches
from src.build_model import build_normalise
from src.data.build import build_source
from src.data.build_engine import build_engine
from src.demo_page.answering import TrainedAnswers
from src.demo_page.onnx_answering import Preprocessing, pixels
from src.demo_page.words import Refused
from src.distributed import World
from src.predictor import Predictor, encoded
from src.session import Place
from src.tracking.console import start_console
from src.trained import Trained, build_trained, open_trained
from src.training.evaluation import logits_of
from src.training.precision import choose_precision
from tests.pictures import encode, noise, write_files
from tests.shown_model import CLASSES, odd_images, saved

CPU = torch.device("cpu")
MOST = 1_000_000
BOUNDS = {"bilinear": 1, "bicubic": 2}  # grey levels, as src/demo_page/onnx_answering.py says


@pytest.fixture(scope="module")
def place() -> Place:
    return Place(World(0, 0, 1, 1, under_torchrun=False), CPU, start_console(speaks=True))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A val split with one image in each of many files, spread over the classes."""
    root = tmp_path_factory.mktemp("val")
    files = {f"val/{CLASSES[number % len(CLASSES)]}/{name}": data for number, (name, data) in enumerate(odd_images().items())}
    return write_files(root, {**files, **{f"train/{name}/x.png": encode("png") for name in CLASSES}})


def evaluation(trained: Trained, place: Place) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return pixels and logits of each file as the torchvision engine and the loop's evaluation make them, one image a batch."""
    config, precision = trained.config, choose_precision("fp32", CPU)
    source = build_source(config.data, "val", threads=1, progress=lambda done, total: None)
    engine = build_engine(config.data, "torchvision", source, device=CPU, threads=1, stuck_seconds=60)
    model, normalise = build_trained(trained, precision, CPU), build_normalise(config, precision, CPU)
    found = {}
    with torch.no_grad():
        for batch in eval_batches(config, place.world, engine, source):
            logits = logits_of(model, normalise(batch.images), flip=config.test_time_augmentation == "flip")
            (index,) = batch.plan.ids.tolist()
            found[Path(source.name(index)).name] = (batch.images[0].clone(), logits[0].float())
    engine.close()
    return found


@pytest.mark.parametrize("flip", ["none", "flip"])
def test_pixels_and_logits_are_evaluations_to_the_bit(run: Path, stored: Path, place: Place, flip: str) -> None:
    trained = open_trained(run, [f"data.path={stored}", "eval_batch_size=1", f"test_time_augmentation={flip}"])
    expected = evaluation(trained, place)
    answers = TrainedAnswers(trained, place, MOST)
    assert expected.keys() == odd_images().keys()
    for name, data in odd_images().items():
        image, logits = expected[name]
        answer = answers(data)
        assert np.array_equal(answer.crop, image.permute(1, 2, 0).numpy()), name
        shares = logits.double().softmax(0)
        assert [share for _, share in answer.top] == sorted(shares.tolist(), reverse=True)[:5], name
        predictor = answers._predictor
        assert torch.equal(predictor.logits_of(predictor.pixels([encoded(data)]))[0], logits), name


def test_labels_are_for_people_and_shares_fall(run: Path, place: Place) -> None:
    answer = TrainedAnswers(open_trained(run, []), place, MOST)(encode("jpeg"))
    names = {"tench", "goldfish", "great white shark", "tiger shark", "hammerhead", "electric ray", "cock"}
    assert {label for label, _ in answer.top} <= names and len(answer.top) == 5
    assert [share for _, share in answer.top] == sorted((share for _, share in answer.top), reverse=True)
    assert answer.prepare_seconds > 0 and answer.model_seconds > 0


@pytest.mark.parametrize("cut", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["jpeg.jpg", "cmyk.jpg", "png.png", "moving.gif", "lossy.webp", "old.bmp", "scan.tiff"])
def test_half_an_image_is_refused_where_evaluation_refuses_it(run: Path, place: Place, name: str, cut: float) -> None:
    data = odd_images()[name]
    data = data[: int(len(data) * cut)]
    answers = TrainedAnswers(open_trained(run, []), place, MOST)
    if name == "moving.gif":  # what is cut off is a later frame
        assert answers(data).top
        return
    with pytest.raises(Refused):
        answers(data)


@pytest.mark.parametrize("interpolation", BOUNDS)
def test_a_spaces_pixels_are_evaluations_within_the_bound(run: Path, interpolation: str) -> None:
    sizes = [(333, 250), (90, 400), (41, 40), (40, 40), (640, 480), (23, 31)]
    pictures = [saved_noise(width, height) for width, height in sizes] + list(odd_images().values())
    config = open_trained(run, [f"data.eval_interpolation={interpolation}"]).config
    predictor = Predictor(config, torch.nn.Identity(), choose_precision("fp32", CPU), CPU)
    ours = Preprocessing(40, 32, interpolation, config.data.mean, config.data.std, flip=False)
    worst = 0
    for data in pictures:
        theirs = predictor.pixels([encoded(data)])[0].permute(1, 2, 0).numpy().astype(int)
        worst = max(worst, int(abs(pixels(data, ours) - theirs).max()))
    assert 0 < worst <= BOUNDS[interpolation]
    same = predictor.pixels([encoded(saved_noise(40, 50))])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels(saved_noise(40, 50), ours), same)  # nothing is resized


def saved_noise(width: int, height: int) -> bytes:
    return saved(Image.fromarray(noise(width, height, 1)), "PNG")
