"""One self-contained HTML page of tables, drawings and pictures; it loads nothing and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from groundglass.report.words import RESEARCH_USE_ONLY

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 0 1rem 3rem; color: #1b1f24;
  background: #fff }
.use { position: sticky; top: 0; margin: 0 -1rem; padding: .5rem 1rem; text-align: center; font-weight: 600;
  max-width: none;  background: #ffe9c2; color: #5c3b00 }
h1 { font-size: 1.6rem; margin: 1rem 0 .2rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem }
p { max-width: 75ch; overflow-wrap: anywhere } .wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem; vertical-align: top }
thead th { border-bottom: 2px solid #d5dae0; font-size: .9rem; color: #56606b }
tr { border-bottom: 1px solid #d5dae0 } td { font-variant-numeric: tabular-nums }
.error { color: #b3261e; font-weight: 600 } .warning { color: #8a5a00 }
figure { margin: 1.2rem 0; min-width: 0 } svg, img { max-width: 100%; height: auto } figcaption { color: #56606b }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 1.5rem }
code { overflow-wrap: anywhere } footer { margin-top: 2rem; color: #56606b; font-size: .9rem }
@media print { .use { position: static } figure { break-inside: avoid } }
"""


def frame(title: str, style: str, parts: Iterable[str]) -> str:
    """A page around parts that are HTML already: it can load and run nothing, and the note on use stays on top."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body>",
        f'<p class="use" role="note">{RESEARCH_USE_ONLY}</p><main>',
    )
    return "\n".join((*head, *(p for p in parts if p), "</main></body></html>", ""))


def document(title: str, parts: Iterable[str]) -> str:
    """The page of an audit, an evaluation or another report, from parts that are HTML already."""
    return frame(title, _STYLE, (f"<h1>{escape(title)}</h1>", *parts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text cells; the first of each row is its header."""
    top = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(c)}</td>" for c in row[1:])}</tr>'
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def figure(caption: str, drawing: str) -> str:
    """An SVG with its caption; nothing if there is no drawing."""
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>" if drawing else ""


def picture(caption: str, png: bytes) -> str:
    """A PNG with its caption, inside the page."""
    data = base64.b64encode(png).decode("ascii")
    words = escape(caption)
    return f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'


def grid(parts: Sequence[str]) -> str:
    """Figures side by side where there is room."""
    return f'<div class="grid">{"".join(parts)}</div>' if any(parts) else ""


def section(title: str, *parts: str) -> str:
    """A heading with what belongs to it; nothing if that is empty."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(parts) if any(parts) else ""


def words(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"
