"""Results as one HTML page that needs nothing else: no network, no script; pictures lie in the page.

Every text that comes from outside goes through `_text`, which escapes it.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from groundglass.report.schema import Failure, Result
from groundglass.report.words import (
    CT_WORDS,
    RESEARCH_USE_ONLY,
    answered,
    of_lung,
    percent,
    printable,
    second_question,
    short,
)
from groundglass.types import ModelCard, Prediction, Refusal
from groundglass.write import write_bytes

# The page can load nothing and run nothing, even where an escape should fail.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Entry:
    """A result and its pictures, each a caption and the bytes of a PNG."""

    result: Result
    pictures: tuple[tuple[str, bytes], ...] = ()


def page(
    entries: Sequence[Entry],
    *,
    version: str,
    card: ModelCard | None = None,
    sha256: str | None = None,
    heat: bool = True,
) -> str:
    """The whole page; `card` and `sha256` describe the model that answered.

    `heat` says that the pictures show heat; else they show what looks opaque.
    """
    pictures = "".join(_figures(e) for e in entries)
    return "".join(
        (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>Groundglass: {_count(len(entries), 'result')}</title><style>{_style()}</style></head>\n<body>",
            f'<p class="use" role="note">{_text(RESEARCH_USE_ONLY)}</p>\n<main>',
            "<h1>COVID-19 pneumonia on axial lung CT</h1>",
            f'<p class="pale">{_summary(entries)}</p>\n',
            _table(entries),
            _reading(),
            _pictures(pictures, heat),
            _card(card, sha256) if card is not None else "",
            f"\n<footer><p>{_text(RESEARCH_USE_ONLY)}</p><p>Groundglass {_text(version)}</p></footer>",
            "</main></body></html>\n",
        )
    )


def write_page(path: Path, text: str) -> None:
    """Write a page whole or not at all.

    Raises OutputError if the place cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def _text(value: str) -> str:
    return html.escape(printable(value), quote=True)


def _style() -> str:
    return files("groundglass.report").joinpath("page.css").read_text(encoding="utf-8")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _summary(entries: Sequence[Entry]) -> str:
    kinds = Counter(type(e.result) for e in entries)
    above = sum(isinstance(e.result, Prediction) and e.result.label == "covid" for e in entries)
    parts = [_count(len(entries), "input"), f"{kinds[Prediction]} answered ({above} at or above the threshold)"]
    parts.append(f"{kinds[Refusal]} refused")
    if kinds[Failure]:
        parts.append(f"{kinds[Failure]} failed")
    return ", ".join(parts) + "."


def _table(entries: Sequence[Entry]) -> str:
    names = ("Input", "Answer", "Probability", "Threshold", "Opaque lung", "Slices", "Remarks")
    head = "".join(f'<th scope="col" role="columnheader">{n}</th>' for n in names)
    rows = "\n".join(_row(e.result, names[1:]) for e in entries)
    # Roles are repeated because the phone layout takes the table display, and with it the meaning, away.
    return (
        '<table role="table"><caption>One row for each input. The threshold is the vertical line on the bar.</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n<tbody role="rowgroup">{rows}</tbody></table>\n'
    )


def _row(result: Result, names: Sequence[str]) -> str:
    if isinstance(result, Prediction):
        cells = (
            f'<span class="status {result.label}">{_text(answered(result))}</span>',
            f'<span class="number">{percent(result.probability)}</span>{_meter(result)}',
            f'<span class="number">{percent(result.threshold)}</span>',
            _opaque(result),
            f'<span class="number">{len(result.slices)}</span>',
            _second(result) + _notices(result),
        )
    elif isinstance(result, Refusal):
        reason = f"<p>{_text(result.reason)}</p><p><code>{_text(result.code)}</code></p>"
        cells = ('<span class="status refused">refused: no answer</span>', "", "", "", "", reason + _notices(result))
    else:
        reason = f"<p>{_text(result.detail)}</p><p><code>{_text(result.code)}</code></p>"
        cells = ('<span class="status error">failed: no answer</span>', "", "", "", "", reason)
    body = "".join(f'<td role="cell" data-name="{n}">{c}</td>' for n, c in zip(names, cells, strict=True))
    return f'<tr role="row"><th scope="row" role="rowheader">{_text(result.source)}</th>{body}</tr>'


def _opaque(result: Prediction) -> str:
    """How much of the lung looks opaque, and the severity class in words; empty without an opacity map."""
    if result.opaque is None or result.ct_class is None:
        return ""
    opaque = result.opaque
    sides = [f"{name} {of_lung(s)}" for name, s in (("right", opaque.right), ("left", opaque.left)) if s is not None]
    return (
        f'<span class="number">{of_lung(opaque.total)}</span><p>{_text(result.ct_class)}: '
        f'{_text(CT_WORDS[result.ct_class])}</p><p class="pale">{_text(", ".join(sides))}</p>'
    )


def _second(result: Prediction) -> str:
    """The second question in words; empty if the model does not answer it."""
    return "" if result.differential is None else f"<p>{_text(second_question(result.differential))}</p>"


def _meter(result: Prediction) -> str:
    """A bar for the eye; the numbers beside it say the same."""
    return (
        f'<div class="meter {result.label}" aria-hidden="true"><i style="width:{100 * result.probability:.1f}%"></i>'
        f'<b style="left:{100 * result.threshold:.1f}%"></b></div>'
    )


def _notices(result: Prediction | Refusal) -> str:
    if not result.notices:
        return ""
    return (
        "<ul>" + "".join(f"<li>{_text(n.detail)} <code>{_text(n.code)}</code></li>" for n in result.notices) + "</ul>"
    )


def _reading() -> str:
    return (
        "<h2>How to read this</h2><p>The probability is for opacities of the kind that COVID-19 pneumonia makes. It "
        "was fitted on validation slices of the sources that the model was trained on; on other data it can be far too "
        "high or too low, so take it as a score. Other diseases make such opacities too, and below the threshold does "
        "not mean healthy. A refused input gets no number, because none would mean anything; the remark says what to "
        "give instead. Slices are counted from 1, from the feet to the head.</p>"
        "<p>Opaque lung is the share of lung on the judged slices that looks opaque to the model, with the CT severity "
        "class by that share: CT-0 none or next to none, CT-1 less than a quarter, CT-2 to a half, CT-3 to three "
        "quarters, CT-4 more. Right and left are the patient's.</p>"
    )


def _pictures(pictures: str, heat: bool) -> str:
    """All pictures with what their colours mean; nothing if there is none."""
    if not pictures:
        return ""
    if not heat:
        words = (
            "Tinted and outlined is lung that looks opaque to the model; the green line is the lung field, and nothing "
            "outside it is coloured. The tint is what the share of opaque lung is counted from."
        )
        return f'\n<h2>What looks opaque</h2><p class="pale">{words}</p>{pictures}'
    return f"\n<h2>Where the model looked</h2>{_heat_words()}{pictures}"


def _heat_words() -> str:
    return (
        '<p class="pale">Orange speaks for COVID-19 pneumonia, blue against it, no colour is neutral; the green line '
        "is the lung field, and nothing outside it is coloured. The numbers beside the colours are log odds, and each "
        "picture has its own scale: compare places in one picture, not the colours of two. Heat shows where the model "
        "found its evidence. It does not outline disease.</p>"
    )


def _figures(entry: Entry) -> str:
    if not entry.pictures:
        return ""
    out = [f"<h3>{_text(entry.result.source)}</h3>"]
    for caption, png in entry.pictures:
        if not png.startswith(b"\x89PNG\r\n"):
            raise ValueError(f"pictures: the bytes of a PNG, got {png[:4]!r}")
        data = base64.b64encode(png).decode("ascii")
        words = _text(caption)
        out.append(
            f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'
        )
    return "\n".join(out)


def _card(card: ModelCard, sha256: str | None) -> str:
    rows = [
        ("Model", f"{card.name} {card.version}" + (f", sha256 {short(sha256)}" if sha256 else "")),
        ("Intended use", card.intended_use),
        ("Trained on", ", ".join(card.sources)),
        ("Window", f"centre {card.window.center:g} HU, width {card.window.width:g} HU"),
        ("Thresholds", ", ".join(f"{name} {value:.3f}" for name, value in card.thresholds.items())),
        ("Licence", card.licence),
        *card.figures.items(),
    ]
    body = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows if value)
    return f"\n<h2>The model</h2><dl>{body}</dl>"
