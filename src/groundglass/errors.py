"""Every failure that a caller can act on, as one small tree.

    GroundglassError          code, detail, exit_status
    ├── InputError            the input gets no answer                exit 3, HTTP 413, 415 or 422
    ├── ManifestError         a manifest or a data folder is wrong    exit 3
    ├── ConfigError           a recipe, card or setting is wrong      exit 2, HTTP 400
    ├── ModelError            weights missing, damaged or unpinned    exit 5, HTTP 503
    ├── OutputError           a result cannot be made or written here exit 6, HTTP 507
    └── RemoteError           another machine fails or answers wrong  exit 7, HTTP 502

`code` is stable and meant for programs. `detail` is a `Reason`: one sentence for people, with what was expected, what
came and what to do as fields; it never holds a patient's data or a path.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar

# Every code an input can be refused with, and the HTTP status that goes with it: 413 is over a limit, 415 is a
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


class Reason(str):
    """Why something failed: the sentence `<about>: expected <expected>, got <got>; <instead>`, and its parts.

    `about` names the option, key, file or row that is wrong; `instead` says what to do. Both may be empty. A reason
    that was read from JSON is its `sentence` alone, and its parts are empty.
    """

    expected: str
    got: str
    instead: str
    about: str

    def __new__(
        cls, expected: str, got: object, instead: str = "", about: str = "", *, sentence: str | None = None
    ) -> Reason:
        made = f"{about}: " * bool(about) + f"expected {expected}, got {got}" + f"; {instead}" * bool(instead)
        self = super().__new__(cls, made if sentence is None else sentence)
        self.expected, self.got, self.instead, self.about = expected, str(got), instead, about
        return self

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Expected, got, instead, about: what makes this reason again."""
        return self.expected, self.got, self.instead, self.about

    def __getnewargs_ex__(self) -> tuple[tuple[str, ...], dict[str, str]]:
        return self.parts, {"sentence": str(self)}


class GroundglassError(Exception):
    """A failure with a stable code and a reason that says what to do."""

    exit_status: ClassVar[int] = 1

    def __init__(self, code: str, expected: str, got: object, instead: str = "", about: str = "") -> None:
        self.code = code
        self.detail = Reason(expected, got, instead, about)
        super().__init__(f"{code}: {self.detail}")

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """Code, expected, got, instead, about: what makes this error again, as text that JSON can carry."""
        return self.code, *self.detail.parts

    def __reduce__(self) -> tuple[type[GroundglassError], tuple[object, ...]]:
        """Pickled as what it was made from: an error has to come out of a pool of processes."""
        return type(self), self.parts


class InputError(GroundglassError):
    """The input gets no answer; `code` is a key of `INPUT_CODES`."""

    exit_status = 3

    def __init__(self, code: str, expected: str, got: object, instead: str = "", about: str = "") -> None:
        if code not in INPUT_CODES:
            raise ValueError(f"code: one of INPUT_CODES, got {code!r}")
        super().__init__(code, expected, got, instead, about)

    @property
    def http_status(self) -> int:
        return INPUT_CODES[self.code]


class ManifestError(GroundglassError):
    """A manifest, or the folder it is made from, breaks its rules; nothing was written.

    `problems` names every row or manifest path that is wrong, in a sentence each; the message lists the first twenty.
    """

    exit_status = 3
    LISTED: ClassVar[int] = 20

    def __init__(self, code: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - self.LISTED
        lines = [*self.problems[: self.LISTED], *([f"and {more} more"] if more > 0 else [])]
        listed = "".join(f"\n  {line}" for line in lines)
        super().__init__(code, "no problems", str(len(self.problems)), f"correct them and run again:{listed}")

    def __reduce__(self) -> tuple[type[GroundglassError], tuple[object, ...]]:
        return type(self), (self.code, self.problems)


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
        "descriptors, processes and memory enough on this machine",
        repr(got),
        "raise the limit (ulimit -a) or stop other programs, and run again",
    )


class RemoteError(GroundglassError):
    """Another machine cannot be reached, breaks off, or sends other bytes than it should."""

    exit_status = 7
