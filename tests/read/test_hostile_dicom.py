"""DICOM that was made to harm: programs, names, bombs, damaged bytes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    JPEG2000Lossless,
    RLELossless,
)

from groundglass.errors import InputError
from groundglass.read.limits import MIB
from groundglass.read.scan import Decoder, find, read
from groundglass.types import Scan
from tests.read.builders import (
    CANARY,
    dataset,
    dicom,
    element,
    written,
)
from tests.read.dicom_samples import GOOD, HU, codes, compressed, deflated


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_D07_flipped_bytes_give_a_scan_or_a_refusal(data: st.DataObject, read_bytes: Callable[[bytes], Scan]) -> None:
    start = data.draw(st.sampled_from([GOOD, compressed(RLELossless), compressed(JPEG2000Lossless), deflated()]))
    broken = bytearray(start)
    head = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 5))):
        broken[data.draw(st.integers(128, 1400 if head else len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        status = {"HU": 200}[read_bytes(bytes(broken)).unit]
    except InputError as error:
        status = error.http_status
    assert status in (200, 413, 415, 422)


def test_D11_a_deflated_bomb_costs_at_most_300_mib(tmp_path: Path) -> None:
    path = tmp_path / "bomb.dcm"
    with Decoder() as worker:
        path.write_bytes(GOOD)
        read(path, worker)
        status = Path(f"/proc/{worker.pid}/status")
        peaks = []
        for data in (GOOD, deflated(surplus=400 * MIB)):
            path.write_bytes(data)
            with nullcontext() if data is GOOD else pytest.raises(InputError, match="too_large"):
                read(path, worker)
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            peaks.append(int(line.split()[1]))
    assert peaks[1] - peaks[0] < 300 << 10


@pytest.mark.parametrize("program", [b"MZ", b"\x7fELF", b"#!/bin/sh\n"], ids=["D30-pe", "D30-elf", "D30-shell"])
def test_a_program_in_the_preamble_is_told(program: bytes, read_bytes: Callable[[bytes], Scan]) -> None:
    scan = read_bytes(written(dataset(), preamble=program.ljust(128, b"\0")))
    assert "executable_preamble" in codes(scan)
    assert np.array_equal(scan.voxels[0], HU)


HOSTILE = {
    "D31-bogus-charset": {"SpecificCharacterSet": "BOGUS 9"},
    "D31-iso-2022": {"SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
    "D31-long-name": {"PatientName": CANARY * 70_000},
    "D31-escapes": {"SeriesDescription": "\x1b[31m\n" + CANARY},
    "D33-formula": {"SeriesDescription": "=cmd|'/c calc'!A0" + CANARY},
    "D33-html": {"SeriesDescription": f"<img onerror=alert('{CANARY}')>"},
}


@pytest.mark.parametrize("tags", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_text_changes_nothing_and_goes_nowhere(
    tags: dict[str, Any], read_bytes: Callable[[bytes], Scan], capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dicom(**tags)
    capfd.readouterr()
    scan = read_bytes(data)
    assert np.array_equal(scan.voxels[0], HU)
    seen = "".join(capfd.readouterr()) + repr(scan.notices) + scan.source
    assert "ZZCANARY" not in seen
    assert "CANARY-77" not in seen


@pytest.mark.parametrize(
    "break_it",
    [
        lambda data: data[:-500],
        lambda data: data.replace(b"19010203", b"CANARY!!"),
        lambda data: data.replace(b"B70f", b"CAN\xff"),
        lambda data: data.replace(element(0x00281053, b"DS", b"1 "), element(0x00281053, b"DS", b"CANARY-77 ")),
        lambda data: data.replace(b"MONOCHROME2 ", b"ZZCANARYNAME"),
    ],
)
def test_no_phi_leaves_the_worker(
    break_it: Callable[[bytes], bytes], tmp_path: Path, decoder: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "slice.dcm"
    path.write_bytes(break_it(GOOD))
    try:
        seen = repr(find(path, decoder=decoder)) + repr(read(path, decoder).notices)
    except InputError as error:
        seen = f"{error!s} {error!r} {error.__cause__!r} {error.__context__!r}"
    seen += "".join(capfd.readouterr())
    for canary in ("ZZCANARY", "CANARY-77", "CANARY!!", "19010203"):
        assert canary not in seen
