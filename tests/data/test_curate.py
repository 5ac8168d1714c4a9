"""Every image left out breaks a rule that can be read, and nothing else is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundglass.data import curate
from groundglass.data.look import Look, Lungs
from groundglass.errors import ConfigError
from tests.data.records import record

LIMITS = curate.thresholds()
GOOD = Look(
    "0" * 64, None, height=512, width=512, noise=0.001, clutter=0.01, lungs=Lungs(0.3, 0.0, 0, "axial_lung_ct", 0.99)
)
LOOKS = st.builds(
    Look,
    sha256=st.just("0" * 64),
    refusal=st.none() | st.just("truncated"),
    notices=st.sampled_from([(), ("annotation",)]),
    height=st.integers(32, 600),
    width=st.integers(32, 600),
    noise=st.floats(0, 0.1),
    clutter=st.floats(0, 0.1),
    marks=st.floats(0, 0.01),
    lungs=st.none()
    | st.builds(
        Lungs,
        fraction=st.floats(0, 1),
        at_border=st.floats(0, 1),
        sides=st.integers(0, 4),
        kind=st.just("axial_lung_ct"),
        accepted=st.floats(0, 1),
    ),
)


@given(st.lists(LOOKS, max_size=20))
def test_images_are_kept_or_have_a_reason_and_never_both(looks: list[Look]) -> None:
    rows = [record(f"{n}") for n in range(len(looks))]
    kept, out = curate.curate(rows, looks, [], LIMITS)
    assert {r.path for r in kept} | {e.path for e in out} == {r.path for r in rows}
    assert not {r.path for r in kept} & {e.path for e in out}


@given(st.lists(LOOKS, max_size=20))
def test_no_rules_leave_out_only_what_cannot_be_read(looks: list[Look]) -> None:
    kept, _ = curate.curate([record(f"{n}") for n in range(len(looks))], looks, [], curate.Thresholds())
    assert len(kept) == sum(look.refusal is None for look in looks)


@pytest.mark.parametrize(
    ("rule", "look"),
    [
        ("shortest_side", Look("0" * 64, None, height=512, width=100)),
        ("noise", Look("0" * 64, None, height=512, width=512, noise=0.09)),
        ("clutter", Look("0" * 64, None, height=512, width=512, clutter=0.09)),
        ("marks", Look("0" * 64, None, height=512, width=512, marks=0.001)),
        ("colour", Look("0" * 64, None, ("annotation",), height=512, width=512)),
        ("lung_fraction", Look("0" * 64, None, height=512, width=512, lungs=Lungs(0.01, 0, 0, "axial_lung_ct", 1.0))),
        ("lung_at_border", Look("0" * 64, None, height=512, width=512, lungs=Lungs(0.3, 0.4, 2, "axial_lung_ct", 1.0))),
        ("axial_lung", Look("0" * 64, None, height=512, width=512, lungs=Lungs(0.3, 0, 0, "head_ct", 0.1))),
        ("unreadable", Look("0" * 64, "truncated")),
        ("unreadable", None),
    ],
)
def test_each_rule_leaves_out_what_breaks_it(rule: str, look: Look | None) -> None:
    kept, out = curate.curate([record("good"), record("bad")], [GOOD, look], [], LIMITS)
    assert [r.path for r in kept] == ["good"]
    assert [(e.path, e.rule) for e in out] == [("bad", rule)]


def test_of_copies_the_first_by_path_stays() -> None:
    rows = [record(name) for name in "abcd"]
    kept, out = curate.curate(rows, [GOOD] * 4, [(1, 0, 0.9), (1, 2, 0.95), (2, 3, 0.5)], LIMITS)
    assert [r.path for r in kept] == ["a", "c", "d"]
    assert [(e.path, e.rule, e.score) for e in out] == [("b", "agreement", 0.9)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colours = 1\n", "colours: expected a known key"),
        ("noise = 'x'\n", "noise: expected float"),
        ("colour = 1\n", "colour: expected bool"),
        ("a = [", "TOML"),
    ],
)
def test_wrong_thresholds_are_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        curate.thresholds(tmp_path / "t.toml")
