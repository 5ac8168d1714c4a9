"""Laws of the gallery's file names."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groundglass.report.gallery import picture_name
from groundglass.types import Scan


def _scan(value: float, name: str = "x") -> Scan:
    return Scan(np.full((1, 8, 8), value, np.float32), "gray", None, name)


@given(st.text(st.characters(codec=None), max_size=300))
def test_every_name_is_safe_whatever_the_input_is_called(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}-[0-9a-f]{12}\.png", picture_name(name, _scan(0.5)))


def test_names_differ_with_the_input_and_with_its_voxels() -> None:
    names = {picture_name(n, _scan(v)) for n in ("a/x.png", "b/x.png") for v in (0.1, 0.2)}
    assert len(names) == 4
    assert picture_name("a/x.png", _scan(0.1)) in names
