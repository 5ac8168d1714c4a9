"""Every failure that a caller can act on, as one small tree.

    GroundglassError          code, detail, exit_status
    ├── InputError            the input cannot be answered for        exit 3, HTTP 413, 415 or 422
    ├── ManifestError         a manifest or a data folder is wrong    exit 3
    ├── ConfigError           a recipe, card or setting is wrong      exit 2, HTTP 400
    ├── ModelError            weights missing, damaged or unpinned    exit 5, HTTP 503
    ├── OutputError           a result cannot be made or written here exit 6, HTTP 507
    └── RemoteError           another machine fails or answers wrong  exit 7, HTTP 502

`code` is stable and meant for programs. `detail` is one sentence for people, shaped
`<expected>, got <value>; <what to do>`; it never holds a patient's data or a path.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar

# Every code an input can be answered with, and the HTTP status that goes with it: 413 is over a limit, 415 is a
# format that is not read, 422 is a format that is read with content that is not accepted.
INPUT_CODES: dict[str, int] = {
    # any file
    "not_found": 422,
    "empty": 422,
    "unsupported": 415,
    "too_large": 413,
    "too_many": 413,
    "truncated": 422,
    "unreadable": 422,
    "decode_limit": 422,
    "decoder_crash": 422,
    "several_scans": 422,
    "own_result": 422,
    # plain images
    "too_small": 422,
    "animated": 422,
    "transparent": 422,
    "not_grayscale": 422,
    "flat_image": 422,
    "narrow_range": 422,
    # DICOM
    "length_exceeds_file": 422,
    "no_pixels": 422,
    "pixel_length": 422,
    "rescale": 422,
    "implausible_hu": 422,
    "photometric": 422,
    "not_ct": 422,
    "not_axial": 422,
    "not_axial_original": 422,
    "bad_uid": 422,
    "patient_identity": 422,
    "possible_burned_in_phi": 422,
    # series
    "several_patients": 422,
    "gap": 422,
    "incomplete": 422,
    "conflicting_slices": 422,
    "inconsistent": 422,
    "no_geometry": 422,
    "too_few": 422,
    # NIfTI
    "non_finite": 422,
    "not_hu": 422,
    "not_a_volume": 422,
    "bad_affine": 422,
    # archives
    "encrypted": 422,
    "bad_archive": 422,
    "overlap": 413,
    "no_images": 422,
    # the gate
    "no_lung": 422,
    "not_axial_lung_ct": 422,
    "cut_lungs": 422,
    "several_slices": 422,
    "few_pixels": 422,
    "compressed": 422,
}


class GroundglassError(Exception):
    """A failure with a stable code and a sentence that says what to do."""

    exit_status: ClassVar[int] = 1

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class InputError(GroundglassError):
    """The input cannot be answered for; `code` is a key of `INPUT_CODES`."""

    exit_status = 3

    def __init__(self, code: str, detail: str) -> None:
        if code not in INPUT_CODES:
            raise ValueError(f"code: one of INPUT_CODES, got {code!r}")
        super().__init__(code, detail)

    @property
    def http_status(self) -> int:
        return INPUT_CODES[self.code]


class ManifestError(GroundglassError):
    """A manifest, or the folder it is made from, breaks its rules; nothing was written.

    `problems` names every row or manifest path that is wrong; the message lists the first twenty.
    """

    exit_status = 3
    LISTED: ClassVar[int] = 20

    def __init__(self, code: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - self.LISTED
        lines = [*self.problems[: self.LISTED], *([f"and {more} more"] if more > 0 else [])]
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(code, f"{count}; mend and run again:\n" + "\n".join(f"  {line}" for line in lines))


class ConfigError(GroundglassError):
    """A recipe, a card or a setting holds an unknown key or a wrong value."""

    exit_status = 2


class ModelError(GroundglassError):
    """The weights are missing, damaged, not the pinned ones, or give wrong answers."""

    exit_status = 5


# What the system calls of a machine say that has no descriptors, processes or memory left.
_SPENT = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)


class OutputError(GroundglassError):
    """A result cannot be made or written here: disk full, read-only, the place is taken, no process to be had."""

    exit_status = 6


def no_resources(error: BaseException) -> OutputError | None:
    """A machine without descriptors, processes or memory as OutputError (`no_resources`); None for another error."""
    spent = isinstance(error, OSError) and error.errno in _SPENT
    threads = isinstance(error, RuntimeError) and "start new thread" in str(error)
    if not (spent or threads or isinstance(error, MemoryError)):
        return None
    got = (error.strerror if isinstance(error, OSError) else None) or str(error) or "no memory"
    return OutputError(
        "no_resources",
        f"descriptors, processes and memory enough on this machine, got {got!r}; raise the limit (ulimit -a) or stop "
        "other programs, and run again",
    )


class RemoteError(GroundglassError):
    """Another machine cannot be reached, breaks off, or sends other bytes than it should."""

    exit_status = 7
