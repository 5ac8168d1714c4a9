"""The other machines of the tests: Debian's orthanc and dcmtk, a C-STORE provider that counts, and small CT series."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series

INSTALL = "apt-get install orthanc orthanc-dicomweb dcmtk dicom3tools"
PROGRAMS = ("Orthanc", "storescu", "dciodvfy", "dcmpschk", "dsrdump")
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ROOT = "1.2.826.0.1.3680043.8.498.77"


def missing() -> list[str]:
    """The programs that are not installed."""
    return [p for p in PROGRAMS if shutil.which(p) is None] + ([] if _PLUGIN.exists() else ["orthanc-dicomweb"])


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass(frozen=True)
class Orthanc:
    dicom: int
    url: str

    @property
    def peer(self) -> str:
        return f"ORTHANC@127.0.0.1:{self.dicom}"

    def send(self, folder: Path) -> None:
        store(folder, self.dicom, "ORTHANC")


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Debian's orthanc with DICOMweb, on free ports, over a database of its own."""
    dicom, web = free_port(), free_port()
    settings = {
        "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "Plugins": [str(_PLUGIN)], "HttpPort": web, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC", "DicomPort": dicom, "DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "db").mkdir(parents=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{web}/system", timeout=5):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        else:
            raise AssertionError("orthanc did not start")
        yield Orthanc(dicom, f"http://127.0.0.1:{web}/dicom-web")
    finally:
        process.terminate()
        process.wait(30)


def store(folder: Path, port: int, called: str, calling: str = "STORESCU") -> None:
    """dcmtk's storescu, all files of a folder in one association."""
    subprocess.run(
        ["storescu", "-aec", called, "-aet", calling, "+sd", "127.0.0.1", str(port), str(folder)],
        check=True,
        capture_output=True,
        timeout=120,
    )


def chest_series(folder: Path, seed: int, slices: int = 12, size: int = 128) -> Path:
    """A drawn chest as a DICOM series; each seed is a patient and a study of its own."""
    write_dicom_series(folder, chest_volume(np.random.default_rng(seed), slices=slices, size=size), seed=seed)
    return folder


def ct(study: int, number: int, size: int = 64, **tags: Any) -> Dataset:
    """One small CT slice; `tags` override."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": f"{ROOT}.{study}.1.{number}",
        "StudyInstanceUID": f"{ROOT}.{study}", "SeriesInstanceUID": f"{ROOT}.{study}.1", "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "PatientID": f"P{study}", "PatientName": "ZZCANARYNAME^X",
        "InstanceNumber": str(number), "ImagePositionPatient": [0.0, 0.0, float(number)],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "PixelSpacing": [1.0, 1.0], "SliceThickness": "1",
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": size, "Columns": size,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "RescaleSlope": "1",
        "RescaleIntercept": "-1024", "PixelData": np.full((size, size), number % 900, "<i2").tobytes(), **tags,
    }  # fmt: skip
    for name, value in values.items():
        setattr(ds, name, value)
    ds["PixelData"].VR = "OW"
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


class Archive:
    """A C-STORE provider that keeps every object and counts how often it came; it answers C-FIND by UID.

    Where `hangs_up`, it ends an association at the first C-FIND.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.came, self.hangs_up = folder, Counter[str](), False
        self._ae = AE(ae_title="ARCHIVE")
        self._ae.supported_contexts = []
        from pynetdicom.presentation import AllStoragePresentationContexts

        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax, [ExplicitVRLittleEndian, "1.2.840.10008.1.2.5"])
        self._ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers = [(evt.EVT_C_STORE, self._stored), (evt.EVT_C_FIND, self._found)]
        self.port = free_port()
        self._server = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    @property
    def peer(self) -> str:
        return f"ARCHIVE@127.0.0.1:{self.port}"

    def objects(self) -> list[Dataset]:
        return [dcmread(path) for path in sorted(self.folder.iterdir())]

    def close(self) -> None:
        self._ae.shutdown()

    def _stored(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        (self.folder / f"{uid}.dcm").write_bytes(event.encoded_dataset())
        self.came[uid] += 1
        return 0x0000

    def _found(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        uid = str(event.identifier.SOPInstanceUID)
        if self.hangs_up:
            event.assoc.abort()
            return
        if self.came[uid]:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", uid
            yield 0xFF00, answer
        yield 0x0000, None
