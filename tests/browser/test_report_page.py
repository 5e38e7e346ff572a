"""The report's page in a real Chromium: whole on desktop and phone, light, dark and on paper, and asking nobody for anything."""

from pathlib import Path
from typing import Any

import pytest

from src.config.report import load_report
from src.reporting.make import make_report
from tests.browser.conftest import Watched
from tests.unit.reporting.made_runs import make_run

HOSTILE = "<img src=x onerror=alert(1)><script>window.hit=1"
FIGURES = "document.querySelectorAll('figure svg')"
# Relative luminance and contrast as in WCAG 2.
CONTRAST = """(() => {
  const parts = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = text => {
    const [r, g, b] = parts(text).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const behind = element => { for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (colour !== 'rgba(0, 0, 0, 0)') return colour; } return 'rgb(255,255,255)'; };
  return [...document.querySelectorAll('h1,h2,h3,p,li,th,td,summary,figcaption,code,strong,figure svg')]
    .map(e => [ratio(getComputedStyle(e).color, behind(e)), e.tagName, e.className]).sort((a, b) => a[0] - b[0])[0]; })()"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three groups: five seeds, a few lower ones of which one is unfinished, and one run with a hostile name."""
    root = tmp_path_factory.mktemp("report")
    for seed in range(5):
        make_run(root / "runs" / f"demo-s{seed}", [86.0 + seed / 9, 89.5, 91.0, 92.0 + seed / 10], seed=seed)
        low = [85.0, 88.0 + seed / 7, 90.0, 91.0 + seed / 8]
        make_run(root / "runs" / f"low-s{seed}", low if seed else low[:2], epochs=4, seed=seed, overrides=["optim.peak_lr=0.01"])
    make_run(root / "runs" / HOSTILE, [80.0, 85.0, 88.0, 89.0], overrides=["optim=adam"])
    runs, config = load_report([str(root / "runs"), f"target={root / 'out'}"])
    make_report(runs, config)
    return root / "out" / "report.html"


def test_the_page_is_whole_and_asks_for_nothing(watched: Watched, page_file: Path, tmp_path: Path) -> None:
    page = watched.page
    page.goto(page_file.as_uri())
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert (watched.elsewhere, watched.complaints) == ([], [])
    assert not watched.overflows()
    assert page.evaluate("window.hit") is None
    assert page.get_by_text(HOSTILE).count() > 0
    boxes = page.evaluate(f"[...{FIGURES}].map(e => e.getBoundingClientRect()).map(b => [b.width, b.height, b.right])")
    width = page.viewport_size["width"]
    assert len(boxes) == 5
    assert all(box[0] > min(300, width - 60) and box[1] > 150 and box[2] <= width for box in boxes)
    assert page.evaluate(f"[...{FIGURES}].every(e => e.getAttribute('aria-label').length > 40)")
    assert watched.screenshot(tmp_path / "page.png").stat().st_size > 50_000


def test_lines_and_letters_of_the_figures_are_really_painted(watched: Watched, page_file: Path) -> None:
    watched.page.goto(page_file.as_uri())
    for figure in watched.page.locator("figure svg").all():
        assert len(colours(figure)) > 20


def test_wide_tables_scroll_in_their_own_box(watched: Watched, page_file: Path) -> None:
    watched.page.goto(page_file.as_uri())
    watched.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert not watched.overflows()
    wider = watched.page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert wider > 0
    assert watched.page.evaluate("[...document.querySelectorAll('.scroll')].every(e => getComputedStyle(e).overflowX === 'auto')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(watched: Watched, page_file: Path, scheme: str) -> None:
    watched.page.emulate_media(color_scheme=scheme)
    watched.page.goto(page_file.as_uri())
    watched.page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    least, *where = watched.page.evaluate(CONTRAST)
    assert least >= 4.5, where
    lines = watched.page.evaluate(f"[...{FIGURES}].length && getComputedStyle(document.documentElement).getPropertyValue('--c0')")
    assert lines.strip() == {"light": "#0072b2", "dark": "#4aa8e0"}[scheme]


def test_on_paper_tables_are_not_cut_off_and_the_page_is_white(watched: Watched, page_file: Path) -> None:
    watched.page.emulate_media(media="print", color_scheme="dark")
    watched.page.goto(page_file.as_uri())
    assert watched.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert watched.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert watched.page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => getComputedStyle(e).overflowX === 'visible')"
    )


def colours(element: Any) -> set[tuple[int, ...]]:
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return set(image.resize((200, 150), Image.Resampling.NEAREST).get_flattened_data())
