"""Results as a table for people: a row for each, then the meaning of the columns and the remarks."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groundglass.report.schema import Failure, Result
from groundglass.report.words import (
    CT_WORDS,
    RESEARCH_USE_ONLY,
    asked,
    of_lung,
    percent,
    printable,
    second_worth,
    worth,
)
from groundglass.types import Prediction, Refusal

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {
    "covid": "bold dark_orange",
    "non-covid": "bold deep_sky_blue1",
    "refused": "bold magenta",
    "failed": "bold red",
}
_GAP = "  "
# Words get at least so many columns, however narrow the terminal is.
_NARROWEST = 24
# A remark names this many inputs; of the others it gives the number.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cell: Callable[[Prediction], str]
    left: bool = False
    colored: bool = False

    def aligned(self, text: str, width: int) -> str:
        return text.ljust(width) if self.left else text.rjust(width)


def _second(result: Prediction) -> str:
    """The answer to the second question; a dash if it was not asked."""
    said = result.differential
    return "" if said is None else "-" if said.probability is None else percent(said.probability)


_COLUMNS = (
    _Column("probability", lambda r: percent(r.probability), colored=True),
    _Column("opaque", lambda r: "" if r.opaque is None else of_lung(r.opaque.total).replace("less than", "<")),
    _Column("severity", lambda r: r.ct_class or "", left=True),
    _Column("COVID-19", _second),
    _Column("label", lambda r: r.label, left=True, colored=True),
)


def results_table(results: Iterable[Result], width: int = 80) -> Iterator[Text]:
    """The lines of the table, `width` columns wide. No name and no word is broken: a long name has a line of its own.

    Names are shown as they are: neither markup nor control characters act.
    """
    from rich.text import Text

    results = list(results)
    answers = [r for r in results if isinstance(r, Prediction)]
    yield from _rows(results, answers, width)
    words = [*_meanings(answers), *_remarks(answers), *_count(results)]
    if words:
        yield Text()
    for paragraph in words:
        yield from map(Text, _wrapped(paragraph, width, hanging=2))
    yield Text(RESEARCH_USE_ONLY, style="dim")


def _rows(results: Sequence[Result], answers: Sequence[Prediction], width: int) -> Iterator[Text]:
    from rich.cells import cell_len
    from rich.text import Text

    shown = [c for c in _COLUMNS if any(c.cell(r) for r in answers)]
    widths = [max(len(c.head), *(len(c.cell(r)) for r in answers)) for c in shown]
    room = width - sum(widths) - len(_GAP) * len(widths)
    names = [printable(r.source) for r in results]
    first = max((cell_len(n) for n in ("input", *names) if cell_len(n) <= room), default=len("input"))
    heads = (_GAP + c.aligned(c.head, w) for c, w in zip(shown, widths, strict=True))
    yield Text(("input".ljust(first) + "".join(heads)).rstrip(), style="dim")
    for name, result in zip(names, results, strict=True):
        if cell_len(name) > first:
            yield Text(name)
            name = ""
        lead = Text(name + " " * (first - cell_len(name)) + _GAP)
        if isinstance(result, Prediction):
            for number, (column, size) in enumerate(zip(shown, widths, strict=True)):
                style = _STYLES[result.label] if column.colored else ""
                lead.append(_GAP * (number > 0)).append(column.aligned(column.cell(result), size), style)
            lead.rstrip()
            yield lead
            continue
        kind, why = ("refused", result.reason) if isinstance(result, Refusal) else ("failed", result.detail)
        for line in _wrapped(f"{kind}: {printable(why)}", max(_NARROWEST, width - first - len(_GAP))):
            yield lead + Text(line, style=_STYLES[kind] if line.startswith(kind) else "")
            lead = Text(" " * first + _GAP)


def _meanings(answers: Sequence[Prediction]) -> Iterator[str]:
    """What each column means, and what its numbers are worth; nothing if there is no answer."""
    for threshold, point, what in dict.fromkeys((a.threshold, a.operating_point, asked(a)) for a in answers):
        known = "" if point is None else f" {worth(point)}"
        yield f"probability: of {what}. The label is covid from {percent(threshold)} on.{known}"
    if any(a.opaque is not None for a in answers):
        classes = ", ".join(f"{name} {words}" for name, words in CT_WORDS.items())
        yield "opaque: the share of the lung on the judged slices that looks opaque."
        yield f"severity: the class by that share: {classes}."
    seconds = [a.differential for a in answers if a.differential is not None]
    if seconds:
        yield (
            "COVID-19: given the opacities, the probability of COVID-19 pneumonia rather than another disease; - if "
            "too little of the lung looks opaque to ask."
        )
    yield from dict.fromkeys(second_worth(said) for said in seconds if said.probability is not None)


def _remarks(answers: Sequence[Prediction]) -> Iterator[str]:
    """Each remark once, with the inputs that it is about."""
    about: dict[str, list[str]] = {}
    for answer in answers:
        for notice in answer.notices:
            about.setdefault(printable(notice.detail), []).append(printable(answer.source))
    for remark, names in about.items():
        more = len(names) - _NAMED
        who = ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        if len(names) == len(answers) > _NAMED:
            who = f"all {len(answers)} answers"
        yield f"{who}: {remark[:1].upper()}{remark[1:].rstrip('.')}."


def _count(results: Sequence[Result]) -> Iterator[str]:
    """How many have no answer, which the exit status says too."""
    kinds = Counter(type(r) for r in results)
    without = [f"{kinds[kind]} {word}" for kind, word in ((Refusal, "refused"), (Failure, "failed")) if kinds[kind]]
    if without:
        total = f"{len(results)} input" + ("" if len(results) == 1 else "s")
        yield f"{total}: {kinds[Prediction]} answered, {', '.join(without)}, so the exit status is not 0."


def _wrapped(text: str, width: int, hanging: int = 0) -> list[str]:
    """Lines of at most `width` columns that break between words, but not before a per cent sign."""
    indent, kept = " " * hanging, text.replace(" %", "\xa0%")
    lines = textwrap.wrap(kept, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\xa0%", " %") for line in lines]
