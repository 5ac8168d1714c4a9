"""`groundglass doctor`: does this machine have what a prediction needs, and does a prediction use no network?"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from groundglass.errors import GroundglassError, InputError

if TYPE_CHECKING:
    from groundglass.read.limits import Limits

PACKAGES = (
    "groundglass",
    "numpy",
    "scipy",
    "onnxruntime",
    "pillow",
    "pydicom",
    "nibabel",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
)
# Transfer syntaxes that CT comes in (DICOM PS3.5 A), and what writes the generated frame that the reader must decode.
SYNTAXES = (
    ("1.2.840.10008.1.2", "Implicit VR Little Endian", "pydicom"),
    ("1.2.840.10008.1.2.1", "Explicit VR Little Endian", "pydicom"),
    ("1.2.840.10008.1.2.5", "RLE Lossless", "pydicom"),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", "pydicom"),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless", "gdcm"),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless", "gdcm"),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless SV1", "gdcm"),
)
# Runs the decoder with a hook under which the first use of a socket from Python is an error: its answers needed none.
_DEAF_CHILD = """
import sys
def refuse(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(refuse)
from groundglass.read.isolate import serve
serve()
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report; `exit_status` is what a failure means for the whole."""

    name: str
    ok: bool
    detail: str
    exit_status: int = 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a check, for bug reports.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check that this machine has what a prediction needs: versions, codecs, weights, folders; and that it stays local.

    A prediction is made on a drawn slice, timed, and watched for the use of the network. Exit status: 0 all is well, 5
    the weights are missing or damaged or a prediction fails, 6 a folder cannot be written, 3 a codec is missing, 2 a
    limit is set wrongly, 1 something used the network.
    """
    from groundglass.read.limits import Limits

    limits = Limits.from_environment(os.environ)
    with suppress(Exception):
        # Where the dicom extra is, pydicom loads requests, whose urllib3 asks the kernel for IPv6 by binding a socket.
        # That reaches nobody, and is done before anybody watches.
        import pydicom  # noqa: F401
    sockets = _watch_sockets()
    checks = []
    for check in _checks(sockets, limits):
        if as_json:
            click.echo(json.dumps(asdict(check)))
        else:
            click.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
        sys.stdout.flush()
        checks.append(check)
    failed = [check for check in checks if not check.ok]
    if not as_json:
        click.echo(f"{len(failed)} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks are well")
    ctx.exit(max((check.exit_status for check in failed), default=0))


def _checks(sockets: list[str], limits: Limits) -> Iterator[Check]:
    yield Check("python", sys.version_info >= (3, 10), f"{platform.python_version()} on {platform.platform()}", 2)
    for name in PACKAGES:
        yield _package(name)
    yield from (
        _folder(name, path) for name, path in (("temporary folder", tempfile.gettempdir()), ("this folder", "."))
    )
    try:
        yield from _codecs(limits)
    except Exception as error:  # a broken library is what this command is there to name
        yield Check("codecs", False, _said(error), 3)
    yield _guarded("weights", 5, _weights)
    yield _guarded("prediction", 5, lambda: _prediction(limits))
    yield Check("network", not sockets, _network(sockets), 1)
    torch = "not loaded, as it is not needed" if "torch" not in sys.modules else "loaded, though it is not needed"
    yield Check("torch", "torch" not in sys.modules, torch, 1)


def _guarded(name: str, exit_status: int, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except Exception as error:  # a door: whatever is broken, the checks after this one still run
        return Check(name, False, _said(error), exit_status)


def _said(error: Exception) -> str:
    if isinstance(error, GroundglassError):
        return f"{error.code}: {error.detail}"
    missing = f" ({error.name})" if isinstance(error, ImportError) and error.name else ""
    return f"{type(error).__name__}{missing}; reinstall groundglass"


def _network(sockets: list[str]) -> str:
    """What is known: Python's audit events see the sockets that Python opens, and no others."""
    used = f"used during the checks above ({', '.join(sorted(set(sockets)))})" if sockets else "no connection seen"
    return f"{used}; the process that decodes images ran without network; native libraries cannot be watched"


def _watch_sockets() -> list[str]:
    """A list that grows by every socket event of this process from now on (PEP 578; a hook cannot be removed)."""
    seen: list[str] = []

    def hook(event: str, _: tuple[Any, ...]) -> None:
        if event.startswith("socket."):
            seen.append(event)

    sys.addaudithook(hook)
    return seen


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed; pip install . in the clone", 3)


def _folder(name: str, path: str) -> Check:
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        return Check(name, False, f"cannot be written: {error.strerror}", 6)
    return Check(name, True, "can be written")


def _weights() -> str:
    from groundglass.infer.model import load

    model = load()  # runs the golden vectors
    return f"{model.name} is whole (sha256 {model.sha256}) and answers a known input as it should"


def _prediction(limits: Limits) -> str:
    """Predict on a phantom from the file on, with a decoder that may use no socket.

    Raises InputError if the phantom is refused: a sound installation answers for it.
    """
    import numpy as np

    from groundglass.infer.model import load
    from groundglass.infer.predict import predict
    from groundglass.phantom.chest import chest_slice
    from groundglass.phantom.files import write_slice_png
    from groundglass.read.scan import Decoder, read
    from groundglass.types import Refusal

    model = load()
    with tempfile.TemporaryDirectory() as folder, Decoder(limits, (sys.executable, "-c", _DEAF_CHILD)) as decoder:
        path = Path(folder) / "phantom.png"
        write_slice_png(path, chest_slice(np.random.default_rng(0), size=512).voxels[0])
        read(path, decoder)  # the first one starts the decoder
        started = time.monotonic()
        result = predict(read(path, decoder), model)
    took = 1000 * (time.monotonic() - started)
    if isinstance(result, Refusal):
        raise InputError(result.code, *result.reason.parts)
    return f"a drawn slice was answered in {took:.0f} ms, with {os.cpu_count()} cores"


def _codecs(limits: Limits) -> Iterator[Check]:
    """Decode one generated frame in each transfer syntax, through the reader that predictions use."""
    import numpy as np

    from groundglass.phantom.chest import chest_slice
    from groundglass.phantom.files import write_dicom_series
    from groundglass.read.scan import Decoder, read

    with tempfile.TemporaryDirectory() as folder, Decoder(limits, (sys.executable, "-c", _DEAF_CHILD)) as decoder:
        write_dicom_series(Path(folder) / "plain", chest_slice(np.random.default_rng(0), size=64))
        plain = next((Path(folder) / "plain").iterdir())
        voxels = read(plain, decoder).voxels
        for uid, name, writer in SYNTAXES:
            path = Path(folder) / f"{uid}.dcm"
            try:
                _WRITERS[writer](plain, path, uid)
                same = bool(np.array_equal(read(path, decoder).voxels, voxels))
            except Exception as error:  # whatever a codec raises, the check has failed
                yield Check(name, False, f"{uid}: {type(error).__name__}; reinstall groundglass", 3)
                continue
            yield Check(name, same, f"{uid} decodes" if same else f"{uid}: other voxels than it was given", 3)


def _with_pydicom(plain: Path, path: Path, uid: str) -> None:
    import pydicom
    from pydicom.uid import UID

    dataset = pydicom.dcmread(plain)
    if UID(uid).is_encapsulated:
        dataset.compress(uid, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = UID(uid)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def _with_gdcm(plain: Path, path: Path, uid: str) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(uid)))
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    if reader.Read():
        change.SetInput(reader.GetImage())
        if change.Change():
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            if writer.Write():
                return
    raise RuntimeError(f"gdcm cannot write {uid}")


_WRITERS = {"pydicom": _with_pydicom, "gdcm": _with_gdcm}
