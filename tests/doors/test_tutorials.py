"""The tutorials are walked: every command of theirs that ends by itself runs, in order, in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.doors.command_line import ROOT, Groundglass, Invoke

TUTORIALS = ROOT / "docs" / "tutorials"
# 4 says that some inputs have no answer: two of the examples must be refused. The audit of a few pictures may say 3.
FINE = {"predict": {0, 4}, "explain": {0, 4}, "screen": {0, 4}, "audit": {0, 3}}
# What waits for others: a browser, an archive.
WAITS = ("serve", "node", "pacs")
# A smaller set and two steps of training show the same way in seconds.
SMALLER = {"--set 40": "--set 16 --size 192", "recipes/own.toml": f"{ROOT}/recipes/own.toml --fast-dev-run --threads 1"}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each line that calls groundglass, as a reader would type them."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for long, short in SMALLER.items():
                line = line.replace(long, short)
            words = shlex.split(line, comments=True)
            if words[:1] == ["groundglass"]:
                yield words[1:]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples and with a scan of one's own."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "examples" / "volume", tmp_path / "study")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda p: p.stem)
def test_a_tutorial_can_be_walked(page: Path, place: Path, invoke: Invoke, groundglass: Groundglass) -> None:
    walked = [words for words in commands(page) if words[0] not in WAITS]
    assert walked
    for words in walked:
        if words[0] == "doctor":  # it looks at its own process, which here may hold torch from another test
            fresh = groundglass(*words)
            assert fresh.returncode == 0, fresh.stdout
            continue
        done = invoke(*words)
        name = next(word for word in words if word not in ("data", "judge"))
        assert done.exit_code in FINE.get(name, {0}), (words, done.output)


def test_labels_in_a_table_are_judged_as_the_how_to_says(place: Path, invoke: Invoke) -> None:
    text = (ROOT / "docs" / "how-to" / "judge.md").read_text(encoding="utf-8")
    part = text.split("## On your own pictures, without training")[1].split("\n## ")[0]
    (place / "mine").mkdir()
    header, *_ = re.findall(r"^path,.+$", part, re.M)
    rows = [header]
    for number, name in enumerate(("ground-glass", "consolidation", "healthy", "healthy")):
        picture = Image.open(place / "examples" / f"{name}.png")
        picture.resize((picture.width + 8 * number, picture.height)).save(place / "mine" / f"{number}.png")
        rows.append(f"{number}.png,{'non-covid' if name == 'healthy' else 'covid'},p{number},test")
    (place / "mine" / "labels.csv").write_text("\n".join(rows) + "\n")
    for line in re.findall(r"^groundglass (.+)$", part, re.M):
        done = invoke(*shlex.split(line))
        assert done.exit_code == 0, (line, done.output)
    assert (place / "judged" / "report.html").is_file()


def test_the_python_of_the_folder_tutorial_reads_what_its_command_wrote(
    place: Path, invoke: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (TUTORIALS / "folder.md").read_text(encoding="utf-8"), re.M | re.S)
    first = next(commands(TUTORIALS / "folder.md"))
    invoke(*first)
    exec(compile(block, "folder.md", "exec"), {})
    assert "not_axial_lung_ct" in capsys.readouterr().out
