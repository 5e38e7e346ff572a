"""What the page shows for an image: a few lines of HTML without scripts. All text is escaped."""

import base64
import html
import io

from PIL import Image

from .words import About, Answer

WAITING = '<div class="answer waiting"><p>Choose, drop or paste an image, and what the model says of it stands here.</p></div>'


def heading(about: About) -> str:
    """Return the page's title and the facts about the model."""
    facts = "".join(f"<li>{html.escape(line)}</li>" for line in about.lines)
    return f'<header class="about"><h1>{html.escape(about.title)}</h1><ul>{facts}</ul></header>'


def refusal(text: str) -> str:
    """Return the message for an image that was not looked at."""
    return f'<div class="answer refused" role="alert"><p><strong>Not answered.</strong> {html.escape(text)}</p></div>'


def result(answer: Answer) -> str:
    """Return the labels with bars, the pixels that the model saw, and the times."""
    rows = "".join(_row(label, probability) for label, probability in answer.top)
    side = answer.crop.shape[0]
    remarks = "".join(f'<p class="note">{html.escape(note)}</p>' for note in answer.notes)
    small = ' class="small"' if side < 100 else ""
    seen = f"The {side} x {side} pixels that the model saw"
    return (
        '<div class="answer"><div class="labels">'
        f"<ol>{rows}</ol></div>"
        f'<figure{small}><img src="{_png(answer)}" alt="{seen}" width="{side}" height="{side}">'
        f"<figcaption>{seen}</figcaption></figure>"
        f'<div class="facts">{remarks}<p class="times">decode and resize {_ms(answer.prepare_seconds)}, '
        f"model {_ms(answer.model_seconds)}</p></div></div>"
    )


def percent(share: float) -> str:
    """Return a probability with a tenth of a percent; what is not nothing does not look like it."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _row(label: str, probability: float) -> str:
    return (
        f'<li><span class="label">{html.escape(label)}</span><span class="share">{html.escape(percent(probability))}</span>'
        f'<span class="bar" aria-hidden="true"><span style="width:{100 * probability:.2f}%"></span></span></li>'
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _png(answer: Answer) -> str:
    file = io.BytesIO()
    Image.fromarray(answer.crop).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
