"""The language that the page speaks: a plain file of messages for each, English sentence to translated sentence.

A new language is a file in `messages/` and its line in `NAMES`. A sentence that a file lacks stays English.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

# code -> what the language calls itself
NAMES = {"en": "English", "de": "Deutsch"}
DEFAULT = "en"


@dataclass(frozen=True, slots=True)
class Language:
    """One language: its code and its messages."""

    code: str
    messages: Mapping[str, str] = field(default_factory=dict)

    def say(self, text: str, /, **values: object) -> str:
        """An English sentence in this language, with its `{names}` replaced by the values."""
        return self.messages.get(text, text).format(**values)

    def about(self, kind: str, code: str) -> str:
        """What this language says of a stable code (`refusal` or `notice`); empty if it says nothing of its own."""
        return self.messages.get(f"{kind} {code}", "")


@cache
def language(code: str) -> Language:
    """The language with this code of `NAMES`; English for any other."""
    return Language(code, json.loads(file_of(code))) if code in NAMES and code != DEFAULT else Language(DEFAULT)


def file_of(code: str) -> bytes:
    """The messages of a language as JSON, which the page's script reads too."""
    return files(__package__).joinpath("messages", f"{code}.json").read_bytes()


def chosen(query: str | None, accepted: str) -> Language:
    """The language that the address asks for; else the first one of Accept-Language that there is."""
    if query in NAMES:
        return language(str(query))
    for part in accepted.split(",")[:20]:
        code = part.partition(";")[0].strip().lower().partition("-")[0]
        if code in NAMES:
            return language(code)
    return language(DEFAULT)
