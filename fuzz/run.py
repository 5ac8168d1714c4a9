"""Tries mutated inputs by number and keeps the count: `make fuzz SECONDS=60`, or

    python -m fuzz.run try reading --seconds 60 --state fuzz.json     # goes on where the file says it stopped
    python -m fuzz.run try all --seconds 240 --state fuzz.json        # the seconds are shared by the harnesses
    python -m fuzz.run only reading 4711                              # one input again, to see it fail
    python -m fuzz.run report fuzz.json -o results/fuzz.csv

Input number N of a harness is made from the seed, the harness and N alone. Each harness runs in a process of its own:
if that dies or is silent for `--patience` seconds, the input at hand is a finding and the next one goes on. Exit status
4 says that there are findings.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random

from fuzz.laws import Broken, Harness

from groundglass.write import write_bytes

HARNESSES = ("reading", "serving", "dimse", "documents")
# Of the findings of one family against one law so many are kept, with their numbers.
_KEPT = 20


@dataclass
class Tried:
    """What one harness has tried so far."""

    next: int = 0
    seconds: float = 0.0
    families: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, str | int]] = field(default_factory=list)
    family: str = ""

    def note(self, event: Mapping[str, str | int]) -> None:
        """Take note of what a child said: that an input begins, how it was answered, or which law it broke."""
        if "begins" in event:
            self.next, self.family = int(event["begins"]), str(event["family"])
            self.families[self.family] = self.families.get(self.family, 0) + 1
            return
        answer = str(event.get("answer", "finding"))
        self.answers[answer] = self.answers.get(answer, 0) + 1
        if "law" in event:
            self._found({"number": self.next, "family": self.family, "law": event["law"], "detail": event["detail"]})
        self.next += 1

    def _found(self, finding: dict[str, str | int]) -> None:
        print(f"finding: {json.dumps(finding)}", file=sys.stderr, flush=True)
        if sum((f["family"], f["law"]) == (finding["family"], finding["law"]) for f in self.findings) < _KEPT:
            self.findings.append(finding)


@dataclass
class State:
    """A seed and what was tried with it; resumable."""

    seed: int = 20
    tried: dict[str, Tried] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, seed: int) -> State:
        if not path.exists():
            return cls(seed)
        said = json.loads(path.read_text())
        return cls(said["seed"], {name: Tried(**tried) for name, tried in said["tried"].items()})

    def write(self, path: Path) -> None:
        write_bytes(path, (json.dumps(asdict(self), indent=1) + "\n").encode(), 0o644)


def harness(name: str) -> Harness:
    """A harness by its name in this folder, or by the whole name of a module."""
    made: Harness = import_module(name if "." in name else f"fuzz.{name}").HARNESS()
    return made


def rng_of(seed: int, name: str, number: int) -> Random:
    """The randomness of one input."""
    return Random(f"{seed}/{name}/{number}")


# ---- the child ------------------------------------------------------------------------------------------------------


def child(name: str, seed: int, first: int) -> None:
    """Try inputs from `first` on, and say of each on standard output that it begins and how it ended."""
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with harness(name) as tried:
        families = tuple(tried.families)
        number = first
        while True:
            family = families[number % len(families)]
            print(json.dumps({"begins": number, "family": family}), file=say)
            ended: dict[str, str] = {}
            try:
                ended["answer"] = tried.one(family, rng_of(seed, name, number))
            except Broken as broken:
                ended |= {"law": broken.law, "detail": broken.detail[:300]}
            except Exception as error:  # whatever it is, nothing in the contract allows it
                ended |= {"law": "listed answer", "detail": f"{type(error).__name__}: {error}"[:300]}
            print(json.dumps(ended), file=say)
            number += 1


# ---- the supervisor -------------------------------------------------------------------------------------------------


class _Child:
    def __init__(self, name: str, seed: int, first: int) -> None:
        words = [sys.executable, "-m", "fuzz.run", "child", name, str(seed), str(first)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).resolve().parents[1]
        )
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def end(self) -> int:
        """Its exit status; it and all that it started are gone afterwards."""
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return status


def attempt(name: str, state: State, seconds: float, patience: float, path: Path) -> None:
    """Try inputs of one harness for so many seconds, counted from the first one, and keep the count in `path`."""
    tried = state.tried.setdefault(name, Tried())
    began, saved = None, time.monotonic()
    while began is None or time.monotonic() - began < seconds:
        running = _Child(name, state.seed, tried.next)
        try:
            for event in _events(running, patience):
                began = time.monotonic() if began is None else began
                tried.note(event)
                if "begins" in event:
                    continue
                if time.monotonic() - saved > 30:
                    saved = time.monotonic()
                    state.write(path)
                if time.monotonic() - began >= seconds:
                    break
        finally:
            running.end()
    tried.seconds += time.monotonic() - began
    state.write(path)


def _events(running: _Child, patience: float) -> Iterator[dict[str, str | int]]:
    """What a child says; if it dies or falls silent, that too."""
    while True:
        try:
            line = running.lines.get(timeout=patience)
        except queue.Empty:
            yield {"law": "bounded time", "detail": f"silent for {patience:g} s"}
            return
        if line is None:
            yield {"law": "nothing ends the process", "detail": f"exit status {running.process.wait()}"}
            return
        yield json.loads(line)


def again(name: str, seed: int, number: int) -> None:
    """Try one input by its number, here, and let what it raises through."""
    with harness(name) as tried:
        families = tuple(tried.families)
        family = families[number % len(families)]
        print(family, tried.one(family, rng_of(seed, name, number)))


def report(states: Sequence[Path], output: Path) -> None:
    """One row a family: inputs tried, and findings that are open; answers of a harness stand in the row `all`."""
    rows: list[dict[str, str | int]] = []
    for name in HARNESSES:
        all_tried = [said.tried[name] for path in states if name in (said := State.read(path, 0)).tried]
        counted: Counter[str] = sum((Counter(tried.families) for tried in all_tried), Counter())
        answers: Counter[str] = sum((Counter(tried.answers) for tried in all_tried), Counter())
        found = Counter(str(finding["family"]) for tried in all_tried for finding in tried.findings)
        for family, count in sorted(counted.items()):
            rows.append({"harness": name, "family": family, "inputs": count, "findings": found[family], "answers": ""})
        said = ", ".join(f"{answer} {count}" for answer, count in answers.most_common())
        total: dict[str, str | int] = {"inputs": counted.total(), "findings": found.total(), "answers": said}
        rows.append({"harness": name, "family": "all"} | total)
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    trying = commands.add_parser("try", help="try inputs")
    trying.add_argument("harness", choices=(*HARNESSES, "all"))
    trying.add_argument("--seconds", type=float, default=60.0)
    trying.add_argument("--patience", type=float, default=300.0)
    trying.add_argument("--seed", type=int, default=20)
    trying.add_argument("--state", type=Path, default=Path("fuzz.json"))
    one = commands.add_parser("only", help="try one input again")
    one.add_argument("harness", choices=HARNESSES)
    one.add_argument("number", type=int)
    one.add_argument("--seed", type=int, default=20)
    reporting = commands.add_parser("report", help="make the table")
    reporting.add_argument("states", type=Path, nargs="+")
    reporting.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "only":
        again(given.harness, given.seed, given.number)
        return 0
    if given.command == "report":
        report(given.states, given.output)
        return 0
    state = State.read(given.state, given.seed)
    names = HARNESSES if given.harness == "all" else (given.harness,)
    for name in names:
        attempt(name, state, given.seconds / len(names), given.patience, given.state)
        tried = state.tried[name]
        print(f"{name}: {tried.next} inputs so far, {len(tried.findings)} findings; {dict(tried.answers)}", flush=True)
    return 4 if any(state.tried[name].findings for name in names) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        with contextlib.suppress(KeyboardInterrupt):  # the supervisor's way to say that it is enough
            child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        sys.exit()
    sys.exit(main())
