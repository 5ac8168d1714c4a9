"""Laws of the fuzz and the soak: they find what is planted, an input is its number, and nothing is counted twice."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from fuzz import seeds
from fuzz.laws import Broken, Nothing
from fuzz.mutate import damaged
from fuzz.processes import Held
from fuzz.run import State, Tried, attempt, report
from fuzz.soak import Soak, figures, minutes

from groundglass.read.scan import Decoder, read


def test_the_supervisor_finds_what_is_planted_and_goes_on_after_it(tmp_path: Path) -> None:
    state, path = State(), tmp_path / "state.json"
    while state.tried.get("tests.planted", Tried()).next < 6:
        attempt("tests.planted", state, 1.0, 5.0, path)
    found = {str(f["family"]): str(f["law"]) for f in state.tried["tests.planted"].findings}
    assert found == {
        "broken": "a law", "unlisted": "listed answer", "dead": "nothing ends the process", "silent": "bounded time",
    }  # fmt: skip
    assert State.read(path, 0) == state


def test_a_run_goes_on_where_it_stopped_and_counts_each_input_once(tmp_path: Path) -> None:
    tried = Tried(next=7)
    for number in (7, 8):
        tried.note({"begins": number, "family": "a"})
        tried.note({"answer": "scan"})
    assert (tried.next, tried.families, tried.answers) == (9, {"a": 2}, {"scan": 2})
    State(3, {"reading": tried}).write(tmp_path / "s.json")
    report([tmp_path / "s.json", tmp_path / "s.json"], tmp_path / "t.csv")
    assert "reading,all,4,0,scan 4" in (tmp_path / "t.csv").read_text()


def test_the_same_number_makes_the_same_damage_and_another_one_another() -> None:
    data = seeds.raster("png")
    made = [damaged(data, Random(f"20/reading/{number}")) for number in range(50)]
    assert made == [damaged(data, Random(f"20/reading/{number}")) for number in range(50)]
    assert len(set(made)) > 40
    assert all(one[:8] == data[:8] for one in (damaged(data, Random(n), start=8) for n in range(50)))


def test_a_descriptor_and_a_file_that_stay_behind_are_seen(tmp_path: Path) -> None:
    nothing = Nothing(tmp_path)
    nothing.check()
    with open("/dev/null") as _, pytest.raises(Broken, match="descriptors"):
        nothing.check()
    (tmp_path / "left").touch()
    with pytest.raises(Broken, match="temporary files"):
        nothing.check()


@pytest.mark.parametrize("syntax", seeds.SYNTAXES)
def test_every_seed_in_dicom_is_read(syntax: str, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(seeds.dicom_in(syntax))
    with Decoder() as decoder:
        assert read(tmp_path / "a.dcm", decoder).voxels.shape == (1, seeds.SIZE, seeds.SIZE)


def test_a_soak_that_grows_says_by_how_much() -> None:
    soak = Soak()
    soak.samples = [(60.0 * n, Held(100.0 + n / 6, 50.0, 9, 1, 3), 0) for n in range(120)]  # 10 MiB an hour
    said = {name: value for name, value, _ in figures(soak, 600.0, None, None, None)}
    assert said["growth of memory, whole tree"] == pytest.approx(10.0)
    assert said["growth of memory, main process"] == 0.0
    soak.started -= 7200
    assert len(list(minutes(soak))) == 120
