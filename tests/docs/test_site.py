"""The site is built strictly, without a network, and holds every key, recipe and module. Its pages ask no other machine."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.docs import api, recipes, reference
from src.config.overrides import CONF_DIR
from src.config.problems import known_keys
from tests.browser.conftest import Watched, browser
from tests.docs.guides import ROOT
from tests.network import cut_off

__all__ = ["browser"]  # a fixture
# What a page loads, other than what the reader clicks at.
LOADED = re.compile(r"<(?:script|img|link|iframe|source|video)\b[^>]*?\b(?:src|href)=\"?(https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as `make docs` does, with the network cut."""
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = cut_off(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    settings = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return folder


def text_of(site: Path, page: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", (site / page).read_text(encoding="utf-8")))


def test_every_key_stands_in_the_configuration_with_its_meaning(site: Path) -> None:
    shown = text_of(site, "configuration.html")
    groups = {folder.name for folder in CONF_DIR.iterdir() if folder.is_dir()}
    chosen = {f"{group}.{name}" for group in groups for name in ("name", "source")} | groups
    assert [key for key in known_keys() if key not in chosen and key not in shown] == []
    rows = [line for line in reference.page().splitlines() if re.match(r"\| `[\w.]+` \| .+ \| .* \| .* \|$", line)]
    assert len(rows) > 150
    assert [row for row in rows if row.rstrip().endswith("|  |")] == [], "a key without a comment in conf/"


def test_every_choice_recipe_and_module_has_its_place(site: Path) -> None:
    shown = text_of(site, "configuration.html")
    choices = [f"{file.parent.name}={file.stem}" for file in CONF_DIR.glob("*/[!_]*.yaml") if file.parent.name != "experiment"]
    assert [choice for choice in choices if choice not in shown] == []
    told = (site / "recipes.html").read_text(encoding="utf-8")
    assert [file.stem for file in CONF_DIR.glob("experiment/[!_]*.yaml") if f'id="{file.stem}"' not in told] == []
    described = "".join(page.read_text(encoding="utf-8") for page in (site / "api").glob("*.html"))
    for name in ("src.training.loop.fit", "src.data.plan.EpochPlan.batch", "src.batch.BatchPlan", "src.trained.open_trained"):
        assert f'id="{name}"' in described
    assert sum(content.count(":::") for _, content in api.pages()) > 200


def test_a_recipes_header_is_told_as_it_stands() -> None:
    told = dict(recipes.header_of(CONF_DIR / "experiment/a40_adam.yaml"))
    assert told["claim"].startswith("76.07 ± 0.22 % top-1") and told["claim"].endswith("(resize 256), bilinear")
    assert told["ran by us"] == "no"


def test_a_type_is_told_in_words() -> None:
    assert reference.allowed({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}, {}) == "whole number >= 1 or `null`"
    assert reference.allowed({"enum": ["a", "b"]}, {}) == "`a`, `b`"
    assert reference.allowed({"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}}, {}) == "list of number > 0"
    assert reference.lines_of(CONF_DIR / "data/_common.yaml")["resize_size"].default == "256"


def test_no_page_loads_from_elsewhere(site: Path) -> None:
    found = [(page.name, match[0]) for page in site.rglob("*.html") for match in LOADED.finditer(page.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_pages_ask_nobody_and_fit_the_window(site: Path, browser: Any, size: str) -> None:
    watched = Watched(browser, size)
    for page in ("index.html", "concepts.html", "configuration.html", "api/data.html"):
        watched.page.goto((site / page).as_uri())
        assert watched.page.locator("h1").first.is_visible()
        assert not watched.overflows(), page
    assert watched.page.title()
    watched.page.goto((site / "concepts.html").as_uri())
    assert watched.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert watched.elsewhere == []
    watched.context.close()
