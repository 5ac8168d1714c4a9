"""Limits on input size, time and memory. Every limit has a default and a name in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from groundglass.errors import ConfigError

MIB = 1 << 20
GIB = 1 << 30
_PREFIX = "GROUNDGLASS_LIMIT_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds (and two lower ones) on what is read; bytes, pixels, counts and seconds.

    Each field is set by the environment variable `GROUNDGLASS_LIMIT_` + its name in capitals.
    """

    slice_bytes: int = 32 * MIB
    study_bytes: int = GIB
    shortest_side: int = 32
    longest_side: int = 4096
    voxels: int = 2**29
    slices: int = 2000
    fewest_slices: int = 2
    files: int = 100_000
    zip_entries: int = 10_000
    zip_bytes: int = 4 * GIB
    zip_entry_bytes: int = GIB
    zip_ratio: int = 200
    zip_ratio_from_bytes: int = 10 * MIB
    inflated_bytes: int = 256 * MIB
    dicom_elements: int = 100_000
    dicom_depth: int = 32
    worker_memory_bytes: int = 2 * GIB
    worker_cpu_seconds: int = 10
    worker_wall_seconds: int = 15
    worker_start_seconds: int = 120
    worker_items: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ConfigError(
                    "limit",
                    "a whole number above 0",
                    repr(value),
                    "correct it",
                    about=f"{_PREFIX}{field.name.upper()}",
                )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Limits:
        """The defaults, with every `GROUNDGLASS_LIMIT_*` of `environment` in their place.

        Raises ConfigError for an unknown name or a value that is no whole number above 0.
        """
        names = {_PREFIX + field.name.upper(): field.name for field in fields(cls)}
        given: dict[str, int] = {}
        for key, text in environment.items():
            if not key.startswith(_PREFIX):
                continue
            if key not in names:
                raise ConfigError("limit", "one of the documented limits", key, "see docs/concepts/reading.md")
            if not text.strip().isascii() or not text.strip().isdigit():
                raise ConfigError("limit", "a whole number above 0", repr(text), "correct it", about=key)
            given[names[key]] = int(text)
        return cls(**given)
