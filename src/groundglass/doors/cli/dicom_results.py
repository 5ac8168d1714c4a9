"""The DICOM objects that `groundglass predict` writes beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from groundglass.errors import GroundglassError, InputError
from groundglass.read.scan import Decoder
from groundglass.report.fault import internal
from groundglass.types import Prediction, Scan
from groundglass.write import require_folder, write_bytes

if TYPE_CHECKING:
    from groundglass.infer.model import Model
    from groundglass.infer.predict import Examination


def result_folders(given: dict[str, Any]) -> dict[str, Path]:
    """The folder for each kind of DICOM object; empty if none is wanted. Errors come before any work."""
    folders = {kind: given.pop(kind.replace("-", "_")) for kind in ("sr", "sc", "gsps", "heat-map")}
    if given.pop("key_images"):
        if folders["sr"] is None:
            raise click.UsageError("--key-images goes with --sr DIR")
        folders["key-images"] = folders["sr"]
    wanted = {kind: folder for kind, folder in folders.items() if folder is not None}
    if wanted:
        from groundglass.report.dicom import require_highdicom

        require_highdicom()
    for folder in wanted.values():
        require_folder(folder)
    return wanted


class DicomResults:
    """Writes the DICOM objects of each answer. It has its own reader, because the first one reads ahead."""

    def __init__(self, folders: Mapping[str, Path], model: Model) -> None:
        self._folders, self._model = folders, model
        self.faults = self.missing = 0
        self._decoder = Decoder()

    def __enter__(self) -> DicomResults:
        return self

    def __exit__(self, *_: object) -> None:
        self._decoder.close()

    def add(self, scan: Scan | None, examination: Examination | None) -> None:
        """Write the objects of an answer. If it has none, as for a PNG, or after an internal error, stderr says so.

        Raises OutputError if they cannot be written.
        """
        if not self._folders or scan is None or examination is None or not isinstance(examination.result, Prediction):
            return
        from groundglass.infer import findings
        from groundglass.report import dicom

        source = examination.result.source
        try:
            reported = dicom.report(findings.Answer(scan, examination), self._model, self._decoder)
            for kind, made in dicom.objects(reported, self._folders):
                write_bytes(self._folders[kind] / f"{kind}-{made.SOPInstanceUID}.dcm", dicom.to_bytes(made))
        except InputError as error:
            self.missing += 1
            _say(source, f"{error.code}: {error.detail}")
        except GroundglassError:
            raise
        except Exception as error:  # the answer stands, whatever becomes of its objects
            self.faults += 1
            failure = internal(source, error)
            _say(source, f"{failure.code}: {failure.detail}")


def _say(source: str, why: str) -> None:
    click.echo(f"groundglass: no DICOM result for {source}: {why}", err=True)
