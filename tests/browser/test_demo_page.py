"""The demo page in a real browser, at a desktop's and a phone's size."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.trained import open_trained
from tests.browser.conftest import Watched
from tests.demo_client import Served, demo, serving, shares
from tests.pictures import encode, write_files
from tests.shown_model import odd_images, write_run

HUGE = (12_000, 9_000)
IMAGES = {
    "photo.jpg": encode("jpeg", 640, 480),
    **{name: odd_images()[name] for name in ("alpha.png", "cmyk.jpg", "moving.gif", "turned.jpg")},
}
REFUSED = {
    "huge.jpg": "This image has 12,000 x 9,000 pixels, 108 million. At most 50 million",
    "text.jpg": "This file is no image that can be read, whatever its name says",
    "cut.jpg": "This image is damaged or incomplete",
    "empty.png": "This file is no image|The file is empty",
}
BOTH = pytest.mark.parametrize("watched", ["desktop", "phone"], indirect=True)
DESKTOP = pytest.mark.parametrize("watched", ["desktop"], indirect=True)


# JavaScript: so many pictures in a DataTransfer named `data`.
FILES = """
const data = new DataTransfer();
for (let number = 0; number < COUNT; number++) {
  const canvas = new OffscreenCanvas(60, 60);
  canvas.getContext('2d').fillRect(number, 0, 9, 60);
  data.items.add(new File([await canvas.convertToBlob()], `${number}.png`, { type: 'image/png' }));
}
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo_page")
    write_run(root / "run")
    write_files(root / "examples", {name: IMAGES[name] for name in ("photo.jpg", "alpha.png")})
    huge = io.BytesIO()
    Image.new("L", HUGE, 90).save(huge, "JPEG")
    bad = {"huge.jpg": huge.getvalue(), "text.jpg": b"only text\n" * 99, "cut.jpg": IMAGES["photo.jpg"][:9000], "empty.png": b""}
    return write_files(root, {**IMAGES, **bad})


@pytest.fixture(scope="module")
def page(room: Path) -> Iterator[Served]:
    with serving(demo(f"checkpoint={room / 'run'}", f"examples={room / 'examples'}", "title=Fish & <birds>")) as served:
        yield served


@pytest.fixture(scope="module")
def expected(room: Path) -> dict[str, list[str]]:
    """The labels that evaluation's own code gives, best first."""
    import torch

    from src.predictor import Predictor, encoded
    from src.trained import build_trained, labels_of
    from src.training.precision import choose_precision

    cpu = torch.device("cpu")
    precision = choose_precision("fp32", cpu)
    trained = open_trained(room / "run", [])
    predictor = Predictor(trained.config, build_trained(trained, precision, cpu), precision, cpu)
    assert trained.classes is not None
    labels = labels_of(trained.classes)
    return {
        name: [labels[index] for index in predictor.logits([encoded(data)])[0].topk(5).indices.tolist()]
        for name, data in IMAGES.items()
    }


def opened(watched: Watched, served: Served) -> Any:
    watched.page.goto(served.url)
    watched.page.wait_for_selector("#image input[type=file]", state="attached")
    watched.page.wait_for_selector("#examples button[aria-label='Example 1']")
    return watched.page


def given(page: Any, file: Path) -> str:
    """Choose a file as a visitor does, and return the answer's HTML."""
    page.set_input_files("#image input[type=file]", file)
    page.wait_for_selector("#answer .answer:not(.waiting)")
    return str(page.inner_html("#answer"))


def taken_away(page: Any) -> None:
    page.get_by_label("Remove Image").click()
    page.wait_for_selector("#answer .waiting")


def sound(watched: Watched) -> None:
    """Nothing was asked of another machine, nothing is wider than the window, and no trace or path is seen."""
    assert watched.elsewhere == [] and watched.complaints == []
    assert not watched.overflows()
    text = watched.page.inner_text("body")
    assert not any(word in text for word in ("Traceback", "Error", "/tmp", ".py", "site-packages"))


@BOTH
def test_every_kind_of_image_is_answered_as_evaluation_answers_it(
    watched: Watched, page: Served, room: Path, expected: dict[str, list[str]], tmp_path: Path
) -> None:
    view = opened(watched, page)
    assert view.title() == "Fish & <birds>" and view.inner_text("h1") == "Fish & <birds>"
    for name in IMAGES:
        html = given(view, room / name)
        assert [label for label, _ in shares(html)] == expected[name], name
        assert "The 32 x 32 pixels that the model saw" in html and "decode and resize" in view.inner_text("#answer")
        box = view.locator("#answer").bounding_box()
        assert box["y"] + 150 < watched.page.viewport_size["height"], "the answer is not in sight"
        taken_away(view)
    given(view, room / "photo.jpg")
    watched.screenshot(tmp_path / "answer.png")
    sound(watched)


@BOTH
def test_what_cannot_be_answered_is_told_in_words_and_the_next_image_is_answered(
    watched: Watched, page: Served, room: Path, expected: dict[str, list[str]]
) -> None:
    view = opened(watched, page)
    before = page.memory()
    for name, words in REFUSED.items():
        html = given(view, room / name)
        text = view.inner_text("#answer [role=alert]")
        assert any(word in text for word in words.split("|")), (name, text)
        assert 'role="alert"' in html
        taken_away(view)
    assert page.memory() - before < 400 * 2**20
    assert [label for label, _ in shares(given(view, room / "photo.jpg"))] == expected["photo.jpg"]
    watched.complaints = [
        said for said in watched.complaints if "/gradio_api/file=" not in said
    ]  # the browser's own broken picture
    sound(watched)


@DESKTOP
def test_examples_pasting_and_twenty_dropped_at_once(watched: Watched, page: Served, expected: dict[str, list[str]]) -> None:
    view = opened(watched, page)
    view.locator("#examples button").nth(1).focus()
    view.keyboard.press("Enter")  # by keyboard alone
    view.wait_for_selector("#answer .label")
    assert [label for label, _ in shares(view.inner_html("#answer"))] == expected["photo.jpg"]  # alpha.png is the first
    taken_away(view)
    paste = "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));"
    view.evaluate(f"async () => {{ {FILES.replace('COUNT', '1')} {paste} }}")
    view.wait_for_selector("#answer .label")
    taken_away(view)
    drop = "document.querySelector('#image input[type=file]').parentElement"
    drop += ".dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));"
    view.evaluate(f"async () => {{ {FILES.replace('COUNT', '20')} {drop} }}")
    view.wait_for_selector("#answer .label")
    sound(watched)


@DESKTOP
def test_a_file_above_the_limit_is_refused_in_words(watched: Watched, page: Served, tmp_path: Path) -> None:
    view = opened(watched, page)
    file = tmp_path / "big.jpg"
    file.write_bytes(encode("jpeg") + bytes(21 * 2**20))
    view.set_input_files("#image input[type=file]", file)
    view.get_by_text("exceed the maximum allowed size").wait_for()
    assert watched.elsewhere == []


@BOTH
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_light_and_dark_and_for_screen_readers(watched: Watched, page: Served, room: Path, scheme: str) -> None:
    watched.page.emulate_media(color_scheme=scheme)
    view = opened(watched, page)
    given(view, room / "photo.jpg")
    colours = "(element) => [getComputedStyle(element).color, getComputedStyle(document.body).backgroundColor]"
    for part in ("#answer .label", "h1", "#answer .times", "#answer figcaption"):
        text, behind = (luminance(colour) for colour in view.locator(part).first.evaluate(colours))
        assert (max(text, behind) + 0.05) / (min(text, behind) + 0.05) >= 4.5, part
    for button in view.locator("button:visible").all():
        assert button.get_attribute("aria-label") or button.inner_text().strip(), button.evaluate("(one) => one.outerHTML")
    for target in view.locator("#image .source-selection button, #examples button").all():
        box = target.bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44
    assert view.locator("#answer").get_attribute("aria-live") == "polite"
    assert view.locator("#answer figure img").get_attribute("alt")
    fonts = view.evaluate("[...document.fonts].filter((font) => font.status === 'error').length")
    assert fonts == 0
    sound(watched)


def luminance(colour: str) -> float:
    """Return the relative luminance of rgb(...) (WCAG 2.2)."""
    import re

    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
