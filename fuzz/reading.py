"""Tries the reading room: plain images, DICOM in each transfer syntax, NIfTI, archives, folders with links.

Held to: every answer is a Scan or a listed code; the worker answers within its limits; its memory is bounded; nothing
is left behind; and what is changed without changing a pixel reads as before, or with a notice, or is refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
from fuzz import seeds
from fuzz.laws import Broken, Nothing
from fuzz.mutate import damaged
from fuzz.processes import peak_mib

from groundglass.errors import INPUT_CODES, InputError
from groundglass.read.scan import Decoder, Limits, read, read_all
from groundglass.types import Scan

# The worker's limits, but for the clock: on a busy machine seconds say nothing, and the limit of CPU time still holds.
LIMITS = Limits(worker_wall_seconds=600, worker_start_seconds=600, worker_items=200)
_WORKER_MIB = 1024.0
Make = Callable[["Reading", Path, Random], Path]


class Reading:
    """The harness; see the top of this file."""

    def __init__(self) -> None:
        self.families: Mapping[str, Make] = {
            **{f"raster, {form}": _raster(form) for form in seeds.RASTERS},
            **{f"dicom, {syntax}": _dicom(syntax) for syntax in seeds.SYNTAXES},
            "nifti": _nifti("nifti"),
            "nifti.gz": _nifti("nifti.gz"),
            "zip": _zip,
            "zip, entries": _entries,
            "series": _series,
            "folder": _folder,
            "same dicom": _same("dicom", seeds.same_dicom),
            "same png": _same("png", seeds.same_png),
            "same nifti": _same("nifti", seeds.same_nifti),
            "same zip": _same("zip", seeds.same_zip),
            "same folder": _same_folder,
        }

    def __enter__(self) -> Reading:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-reading-"))
        (self._folder / "tmp").mkdir()
        tempfile.tempdir = str(self._folder / "tmp")
        self.decoder = Decoder(LIMITS)
        self._whole = {name: self._read_whole(name) for name in ("dicom", "png", "nifti", "zip", "folder")}
        for known in (seeds.dicom_in(syntax) for syntax in seeds.SYNTAXES):  # GDCM keeps /dev/urandom open
            assert known
        self._nothing = Nothing(self._folder / "tmp")
        return self

    def __exit__(self, *_: object) -> None:
        self.decoder.close()
        tempfile.tempdir = None
        shutil.rmtree(self._folder)

    def _read_whole(self, name: str) -> Scan:
        place = self._folder / "whole"
        data = {
            "dicom": seeds.dicom_in("explicit"), "png": seeds.raster("png"), "nifti": seeds.volume_in("nifti"),
            "zip": seeds.packed({f"{n}.dcm": data for n, data in enumerate(seeds.slices())}),
        }.get(name)  # fmt: skip
        if data is None:
            _put(place, seeds.slices())
        else:
            place.write_bytes(data)
        scan = read(place, self.decoder)
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        return scan

    def one(self, family: str, rng: Random) -> str:
        """Make one input and read it; how it was answered."""
        place = self._folder / "in"
        place.mkdir()
        try:
            path = self.families[family](self, place, rng)
            as_scan = rng.random() < 0.1
            outcomes = list(read_all(path, as_scan=as_scan, decoder=self.decoder))
            if path.is_file() and not as_scan and rng.random() < 0.1:
                self._in_memory(path.read_bytes(), outcomes)
            answers = [self._judged(outcome) for _, outcome in outcomes]
            if family.startswith("same "):
                self._as_before(family.removeprefix("same "), outcomes)
        finally:
            shutil.rmtree(place)
        self._nothing.check()
        if self.decoder.pid is not None and peak_mib(self.decoder.pid) > _WORKER_MIB:
            raise Broken("bounded memory", f"{peak_mib(self.decoder.pid):.0f} MiB in the worker")
        return answers[0] if len(answers) == 1 else "several" if answers else "none"

    def _judged(self, outcome: Scan | InputError) -> str:
        if isinstance(outcome, Scan):
            if not np.isfinite(outcome.voxels).all():
                raise Broken("listed answer", "a scan with voxels that are no numbers")
            return "scan"
        if outcome.code not in INPUT_CODES or seeds.CANARY in outcome.detail:
            raise Broken("listed answer", f"{outcome.code}: {outcome.detail}")
        if outcome.code == "decode_limit":
            raise Broken("bounded time and memory", outcome.detail)
        return outcome.code

    def _in_memory(self, data: bytes, outcomes: list[tuple[str, Scan | InputError]]) -> None:
        """The same bytes without a path have the same answer."""
        if len(outcomes) != 1 or isinstance(outcomes[0][1], InputError):
            return
        again, before = read(data, self.decoder), outcomes[0][1]
        if not np.array_equal(again.voxels, before.voxels):
            raise Broken("one answer", "bytes and file of one content give other voxels")

    def _as_before(self, name: str, outcomes: list[tuple[str, Scan | InputError]]) -> None:
        before = self._whole[name]
        for _, outcome in outcomes:
            if isinstance(outcome, InputError) or set(outcome.notices) - set(before.notices):
                continue
            same_place = (outcome.affine is None) == (before.affine is None) and (
                before.affine is None or np.allclose(outcome.affine, before.affine, atol=1e-4)
            )
            if outcome.unit != before.unit or not np.array_equal(outcome.voxels, before.voxels) or not same_place:
                raise Broken("no other answer without a notice", f"{name} reads in another way")


def _put(folder: Path, files: tuple[bytes, ...] | list[bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(files):
        (folder / f"{number:03}.dcm").write_bytes(data)
    return folder


def _file(place: Path, data: bytes) -> Path:
    path = place / "file"
    path.write_bytes(data)
    return path


def _raster(form: str) -> Make:
    def make(_: Reading, place: Path, rng: Random) -> Path:
        data = damaged(seeds.raster(form), rng, start=rng.choice((0, 8)))
        return _file(place, _with_true_sums(data) if form.startswith("png") and rng.random() < 0.5 else data)

    return make


def _with_true_sums(data: bytes) -> bytes:
    """A PNG whose checksums are right for what its chunks hold, so that the decoder behind them is reached."""
    import struct
    import zlib

    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 8 + length
        if end + 4 > len(data):
            break
        out += data[at:end] + struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(out + data[at:])


def _dicom(syntax: str) -> Make:
    def make(_: Reading, place: Path, rng: Random) -> Path:
        whole = seeds.dicom_in(syntax)
        packed = syntax in ("rle", "jpeg-ls", "jpeg 2000", "jpeg lossless", "jpeg")
        if packed and rng.random() < 0.6:
            return _file(place, seeds.with_frame(whole, damaged(seeds.frame_of(whole), rng)))
        return _file(place, damaged(whole, rng, start=rng.choice((0, 132, 132))))

    return make


def _nifti(form: str) -> Make:
    def make(_: Reading, place: Path, rng: Random) -> Path:
        whole = seeds.volume_in(form)
        if rng.random() < 0.7:  # the header, where every byte counts
            head = damaged(whole[:352], rng) if form == "nifti" else damaged(whole[:60], rng)
            return _file(place, head + whole[352 if form == "nifti" else 60 :])
        return _file(place, damaged(whole, rng))

    return make


def _zip(_: Reading, place: Path, rng: Random) -> Path:
    files = {"a.png": seeds.raster("png"), "b/c.dcm": seeds.dicom_in("explicit"), "d.nii": seeds.volume_in("nifti")}
    whole = seeds.packed(dict(rng.sample(sorted(files.items()), rng.randrange(1, 4))), rng)
    tail = len(whole) - 200 if rng.random() < 0.6 else 0  # the directory
    return _file(place, damaged(whole, rng, start=max(tail, 0)))


def _entries(_: Reading, place: Path, rng: Random) -> Path:
    names = (
        "a.png",
        "../a.png",
        "/etc/x",
        "C:\\a.png",
        "a.png/",
        "ä\u202e.png",
        "a" * 500,
        "\x1b[31m",
        "a\x00b",
        "x.zip",
    )
    kinds = (
        *map(seeds.raster, seeds.RASTERS),
        *map(seeds.dicom_in, ("rle", "implicit")),
        seeds.volume_in("nifti.gz"),
        b"",
    )
    files = {rng.choice(names): damaged(rng.choice(kinds), rng) for _ in range(rng.randrange(1, 6))}
    return _file(place, seeds.packed(files, rng))


def _series(_: Reading, place: Path, rng: Random) -> Path:
    files = list(seeds.slices())
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randrange(len(files))
        files[at] = damaged(files[at], rng, start=132) if rng.random() < 0.8 else rng.choice(files)
    return _put(place / "series", files)


def _folder(_: Reading, place: Path, rng: Random) -> Path:
    """A folder with what a folder should not hold: links, loops, pipes, names that are no text."""
    root = place / "root"
    root.mkdir()
    (root / "a.png").write_bytes(seeds.raster("png"))
    for number in range(rng.randrange(1, 8)):
        _odd(root, number, rng)
    return root


def _odd(root: Path, number: int, rng: Random) -> None:
    name = os.fsencode(root) + b"/" + rng.choice((b"n%d" % number, b"\xff\xfe%d.png" % number, b"l\n%d" % number))
    targets = (b".", b"..", b"a.png", b"gone", b"/dev/zero", b"/dev/stdin", b"/proc/self/mem", b"/etc", name)
    match rng.randrange(7):
        case 0 | 1:
            os.symlink(rng.choice(targets), name)
        case 2:
            os.mkfifo(name)
        case 3:
            os.makedirs(name + b"/" + b"/".join([b"d"] * rng.choice((1, 40))))
        case 4:
            os.link(os.fsencode(root / "a.png"), name)
        case 5:
            Path(os.fsdecode(name + b".part")).write_bytes(seeds.raster("png"))
        case _:
            Path(os.fsdecode(name)).write_bytes(damaged(seeds.packed({"a.png": seeds.raster("png")}), rng))


def _same(name: str, make: Callable[[Random], bytes]) -> Make:
    return lambda _, place, rng: _file(place, make(rng))


def _same_folder(_: Reading, place: Path, rng: Random) -> Path:
    """The series under other names, some of them links, beside files that are no images."""
    root, files = place / "root", list(seeds.slices())
    root.mkdir()
    rng.shuffle(files)
    for number, data in enumerate(files):
        path = root / f"{rng.choice(('z', 'a', 'ü'))}{number}"
        if rng.random() < 0.2:
            (place / f"beside-{number}").write_bytes(data)
            path.symlink_to(place / f"beside-{number}")
        else:
            path.write_bytes(data)
    (root / "README").write_bytes(rng.randbytes(100))
    return root


HARNESS = Reading
