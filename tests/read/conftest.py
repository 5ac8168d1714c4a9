"""The decoder that the tests of the reading room share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundglass.read.scan import Decoder, read
from groundglass.types import Scan


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder() as worker:
        yield worker


@pytest.fixture
def read_bytes(decoder: Decoder, tmp_path: Path) -> Callable[[bytes], Scan]:
    """Read bytes as a file whose name says nothing of its format."""

    def one(data: bytes) -> Scan:
        path = tmp_path / "file"
        path.write_bytes(data)
        return read(path, decoder)

    return one
