"""Laws of the page and of the terminal table."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundglass.errors import OutputError, Reason
from groundglass.report import picture
from groundglass.report.page import Entry, page, write_page
from groundglass.report.schema import Failure
from groundglass.report.words import RESEARCH_USE_ONLY, percent, printable
from groundglass.types import LUNG_WINDOW, ModelCard, Notice, Refusal
from tests.report.sample_results import attributed_slice, prediction

REFUSAL = Refusal("head.png", "no_lung", Reason("an axial lung CT", "no lung", "give a slice between apex and base"))
CARD = ModelCard(
    name="first",
    version="1",
    labels=("non-covid", "covid"),
    size=224,
    window=LUNG_WINDOW,
    temperature=1.2,
    thresholds={"balanced": 0.41},
    training_manifest_sha256="a" * 64,
    field_sha256="b" * 64,
    licence="research only",
    intended_use="research on axial chest CT",
)


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them; void elements are the ones that HTML names."""

    void = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text(min_size=1), st.text())
def test_no_text_from_outside_becomes_markup(name: str, reason: str, notice: str) -> None:
    def tags(a: str, b: str, c: str) -> list[tuple[str, dict[str, str | None]]]:
        read = Reader(
            page(
                [Entry(Refusal(a, "no_lung", Reason(b, b), (Notice("x", c),))), Entry(Failure(a, "internal", b))],
                version=c,
            )
        )
        assert not read.open
        return read.tags

    assert tags(name, reason, notice) == tags("a", "b", "c")


def test_markup_in_a_file_name_is_shown_and_not_obeyed() -> None:
    name = "<script>alert(1)</script>\"'&.png"
    text = page([Entry(Refusal(name, "no_lung", Reason("x", "y")))], version="1")
    assert "<script" not in text
    assert name in "".join(Reader(text).words)


def test_the_page_needs_no_network_and_no_script() -> None:
    png = picture.to_png(picture.overlay(*attributed_slice(64), prediction()))
    text = page([Entry(prediction(), (("slice 0", png),)), Entry(REFUSAL)], version="1", card=CARD, sha256="c" * 64)
    read = Reader(text)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in read.tags}
    for _, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
        assert "href" not in attributes
    assert not re.search(r"https?://|url\(|@import", text)


def test_every_page_says_research_use_only_before_anything_else() -> None:
    for entries in ([], [Entry(REFUSAL)], [Entry(prediction())]):
        words = [w.strip() for w in Reader(page(entries, version="1")).words]
        shown = [w for w in words if w and "{" not in w]
        assert shown[1] == RESEARCH_USE_ONLY, "the first words after the title"
    style = page([], version="1")
    assert re.search(r"\.use \{[^}]*position: sticky", style)


def test_every_input_has_a_row_with_a_header() -> None:
    results = [prediction(), REFUSAL, Failure("x.dcm", "internal", "an answer, got none; report this")]
    read = Reader(page([Entry(r) for r in results], version="1"))
    rows = [a for tag, a in read.tags if tag == "th" and a.get("scope") == "row"]
    assert len(rows) == 3
    words = " ".join(read.words)
    for expected in ("slice.png", "93.0 %", "41.0 %", REFUSAL.reason, "no_lung", "8-bit, HU unknown", "3 inputs"):
        assert expected in words


def test_a_refusal_shows_no_percentage() -> None:
    body = page([Entry(REFUSAL)], version="1").split("<tbody")[1].split("</tbody>")[0]
    assert "%" not in body


def test_every_picture_has_words_for_those_who_cannot_see_it() -> None:
    png = picture.to_png(picture.overlay(*attributed_slice(64), prediction()))
    images = [
        a for tag, a in Reader(page([Entry(prediction(), (("slice 0", png),))], version="1")).tags if tag == "img"
    ]
    assert [a["alt"] for a in images] == ["slice 0"]
    with pytest.raises(ValueError, match="PNG"):
        page([Entry(prediction(), (("slice 0", b"<svg/>"),))], version="1")


def test_the_model_card_is_on_the_page() -> None:
    words = " ".join(Reader(page([], version="1", card=CARD, sha256="c" * 64)).words)
    for expected in (
        "first 1",
        "c" * 12,
        "research on axial chest CT",
        "balanced 0.410",
        "centre -600 HU, width 1500 HU",
    ):
        assert expected in words


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    text = page(
        [Entry(Refusal(b"\xff.png".decode("utf-8", "surrogateescape"), "no_lung", Reason("é", "y")))], version="1"
    )
    write_page(tmp_path / "out" / "index.html", text)
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8") == text
    with pytest.raises(OutputError):
        write_page(tmp_path / "out" / "index.html" / "more.html", text)


@given(st.text())
def test_shown_text_holds_no_control_character(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(c.isprintable() or c == "\ufffd" for c in shown)
    assert printable(shown) == shown


@given(st.floats(0, 1))
def test_no_probability_is_shown_as_certain(probability: float) -> None:
    assert percent(probability) not in ("0.0 %", "100.0 %")
