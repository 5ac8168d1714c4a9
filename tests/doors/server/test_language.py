"""Laws of the page's languages: every sentence that it can say is translated, and no translation lies idle."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from groundglass.doors.server import plain_words, series
from groundglass.doors.server.help import COLUMNS, KEYS, TOPICS
from groundglass.doors.server.language import DEFAULT, NAMES, chosen, file_of, language
from groundglass.doors.server.pages import SAMPLES
from groundglass.doors.server.problem import TITLES
from groundglass.errors import INPUT_CODES, Reason
from groundglass.report import words
from groundglass.types import Refusal

SERVER = Path(plain_words.__file__).parent
TRANSLATED = [code for code in NAMES if code != DEFAULT]


def _of_python(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "say":
            first = node.args[0]
            choices = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            for choice in choices:
                yield from (n.value for n in ast.walk(choice) if isinstance(n, ast.Constant) and n.value != 1 / 3)


def _said() -> set[str]:
    """Every sentence that the page can say."""
    said: set[str] = {words.RESEARCH_USE_ONLY, *words.LABEL_WORDS.values(), *words.CT_WORDS.values(), "right", "left"}
    for module in (Path(words.__file__), SERVER / "plain_words.py", SERVER / "pages.py"):
        said |= {text for text in _of_python(module) if isinstance(text, str)}
    for path in (SERVER / "templates").iterdir():
        said |= set(re.findall(r"""say\("([^"]+)\"""", path.read_text(encoding="utf-8")))
        said |= set(re.findall(r"""say\('([^']+)'""", path.read_text(encoding="utf-8")))
    for path in (SERVER / "static").glob("*.js"):
        said |= set(re.findall(r"""\bt\("([^"]+)\"""", path.read_text(encoding="utf-8")))
    for _, lines in TOPICS:
        said |= set(lines)
    said |= {heading for heading, _ in TOPICS} | {what for _, what in KEYS} | {name for _, name in COLUMNS}
    said |= {title for title, _ in SAMPLES.values()} | set(TITLES.values()) | set(plain_words._PLAIN.values())
    said |= {"Overlay", "Side by side", "Wipe", "right lung", "left lung", "both"}  # chosen by loops of a template
    said |= {"The picture is unlike all that the model was checked on: do not rely on the number."}
    said |= {"On data like the validation data, only one answer is plausible at 90 % confidence."}
    said |= {"Both answers are plausible at 90 % confidence: the model cannot tell."}
    keywords = (*series._MADE, *series._WHOSE, "PatientName", "Slices")
    return said | {re.sub(r"([a-z])([A-Z])", r"\1 \2", keyword) for keyword in keywords}


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_sentence_is_translated_and_no_translation_lies_idle(code: str) -> None:
    messages = json.loads(file_of(code))
    own = {name for name in messages if name.startswith(("refusal ", "notice "))}
    assert sorted(_said() - set(messages)) == []
    assert sorted(set(messages) - _said() - own) == []


@pytest.mark.parametrize("code", TRANSLATED)
def test_a_translation_keeps_the_values_of_its_sentence(code: str) -> None:
    for text, translated in json.loads(file_of(code)).items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", translated)), text


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_refusal_is_explained_and_its_detail_stays_at_hand(code: str) -> None:
    for refused in INPUT_CODES:
        said = plain_words.words(Refusal("a", refused, Reason("a scan", "none", "give one")), to=language(code))
        assert said.caution == language(code).about("refusal", refused) != ""
        assert said.original == "Expected a scan, but got none. What to do: give one."


def test_the_address_chooses_the_language_then_the_browser() -> None:
    def code(query: str | None, accepted: str) -> Any:
        return chosen(query, accepted).code

    assert code("de", "en") == "de"
    assert code(None, "de-AT,de;q=0.9,en;q=0.8") == "de"
    assert code(None, "fr,en;q=0.5,de;q=0.4") == "en"
    assert code("xx", "") == code(None, "*") == DEFAULT
