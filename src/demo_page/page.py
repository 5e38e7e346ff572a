"""The page itself, in gradio: the only file that imports it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import looks
from .pictures import DAMAGED, UNDECODABLE
from .result import WAITING, heading, refusal, result
from .words import About, Answering, Limits, Refused

_FAILED = "Something went wrong here. It is noted; try another image."
_GONE = "This image is no longer here. Choose it again."


def build_app(about: About, limits: Limits, answering: Answering, examples: Sequence[Path], folder: Path) -> Any:
    """Build the page as an ASGI application.

    Args:
        about: what the page says of the model.
        limits: for visitors.
        answering: from an image's bytes to what the model says of it. Called from `limits.at_once` threads.
        examples: images inside `folder`, which visitors may choose.
        folder: where gradio keeps uploads (GRADIO_TEMP_DIR was set to it before).

    Raises:
        ImportError: gradio is not installed.
    """
    import gradio
    from fastapi import FastAPI

    page = _blocks(gradio, about, limits, answering, examples, folder)
    page.has_launched = (
        True  # else gradio 6.31 looks at no path: it takes every file of this machine for an upload (_check_allowed)
    )
    theme = gradio.themes.Default(
        primary_hue="blue", secondary_hue="blue", neutral_hue="slate", font=looks.FONTS, font_mono=looks.MONO
    )
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        footer_links=[],
        run_history=False,
        blocked_paths=[str(Path.cwd())] if not folder.is_relative_to(Path.cwd()) else [],
        show_error=False,
        max_file_size=limits.max_upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=looks.CSS,
        js=looks.SCRIPT,
    )


def answer_file(path: str | None, limits: Limits, answering: Answering) -> str:
    """Return the HTML for an uploaded file. Never raises: a visitor's file cannot end anything.

    Args:
        path: where gradio keeps the upload; None: the image was taken away.
        limits: for visitors.
        answering: from an image's bytes to what the model says of it.
    """
    if path is None:
        return WAITING
    try:
        with Path(path).open("rb") as file:
            data = file.read(limits.max_upload_bytes + 1)
    except OSError:
        return refusal(_GONE)
    if len(data) > limits.max_upload_bytes:
        return refusal(f"This file is larger than {limits.max_upload_bytes / 2**20:,.0f} MiB, which is the most that is taken.")
    try:
        return result(answering(data))
    except Refused as error:
        return refusal(str(error))
    except UNDECODABLE:
        return refusal(DAMAGED)
    except Exception:  # whatever a file does to a decoder or to memory: the next visitor is answered
        logging.getLogger(__name__).exception("an image could not be answered")
        return refusal(_FAILED)


def _blocks(gradio: Any, about: About, limits: Limits, answering: Answering, examples: Sequence[Path], folder: Path) -> Any:
    with gradio.Blocks(analytics_enabled=False, title=about.title) as page:
        gradio.HTML(heading(about), padding=False)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=320):
                image = gradio.Image(
                    label="Image",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    image_mode=None,
                    height=300,
                    buttons=["fullscreen"],
                    elem_id="image",
                    webcam_options=gradio.WebcamOptions(mirror=False),
                    alt_text="The image that you chose",
                )
            _hand_on_bytes(image, folder.resolve())
            with gradio.Column(scale=1, min_width=320):
                answer = gradio.HTML(WAITING, elem_id="answer", padding=False)
        if examples:
            dataset = gradio.Dataset(
                label="Examples",
                components=[image],
                samples=[[str(path)] for path in examples],
                type="index",
                samples_per_page=len(examples),
                elem_id="examples",
            )
            dataset.click(lambda index: str(examples[index]), dataset, image, api_visibility="private", show_progress="hidden")
        image.change(
            lambda path: answer_file(path, limits, answering),
            image,
            answer,
            api_name="predict",
            trigger_mode="always_last",
            concurrency_limit=limits.at_once,
            show_progress="minimal",
        ).then(None, js=looks.SHOW_ANSWER, api_visibility="private")
    page.queue(max_size=limits.queue_size, default_concurrency_limit=limits.at_once)
    return page


def _hand_on_bytes(image: Any, folder: Path) -> None:
    """Make gradio's image component hand on the file as it came up, and nothing but uploads.

    Its own preprocessing opens the image with Pillow, turns it by its EXIF data and writes it anew where the mode differs: then the
    pixels would not be evaluation's. It also takes what a client names instead of uploading it: a URL is downloaded.
    This one component is changed, for a class derived from gradio's makes gradio write a .pyi beside this file.
    """
    move = image.async_move_resource_to_block_cache

    async def move_only_uploads(path: Any) -> Any:
        if not Path(path).resolve().is_relative_to(folder):
            raise ValueError("only what was uploaded is looked at")
        return await move(path)

    image.preprocess = lambda payload: None if payload is None else str(payload.path)
    image.async_move_resource_to_block_cache = move_only_uploads
