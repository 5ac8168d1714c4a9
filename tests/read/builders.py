"""Makes the inputs of the reading tests: good ones, and ones broken in a stated way. Nothing here is a real image."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

CT = "1.2.840.10008.5.1.4.1.1.2"
SERIES = "1.2.826.0.1.3680043.8.498.1"
CANARY = "ZZCANARYNAME^X"

Hu = NDArray[np.int16]


def chest(size: int = 96, seed: int = 0) -> Hu:
    """HU int16 (H, W): air, a body of soft tissue, two lungs, a spine at the back, a marker at the patient's left."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    hu = np.full((size, size), -1000.0)
    hu[(x / 0.46) ** 2 + (y / 0.36) ** 2 < 1] = 40
    for side in (-0.2, 0.2):
        hu[((x - side) / 0.14) ** 2 + (y / 0.24) ** 2 < 1] = -860
    hu[(x / 0.06) ** 2 + ((y - 0.25) / 0.06) ** 2 < 1] = 500  # spine: back is a high row
    hu[((x - 0.38) / 0.03) ** 2 + (y / 0.03) ** 2 < 1] = 900  # left of the patient is a high column
    noise = rng.normal(0, 12, hu.shape)
    return np.maximum(np.round(hu + noise), -1024).astype(np.int16)


def gray(size: int = 96, seed: int = 0) -> NDArray[np.uint8]:
    """The chest in a lung window, u8 (H, W)."""
    return np.clip((chest(size, seed) + 1350.0) * 255 / 1500, 0, 255).astype(np.uint8)


# ---- PNG ------------------------------------------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def ihdr(width: int, height: int, depth: int = 8, colour: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def png_of(pixels: NDArray[Any], extra: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """8-bit or 16-bit gray PNG of (H, W)."""
    height, width = pixels.shape
    lines = pixels.astype(">u2" if pixels.dtype.itemsize == 2 else np.uint8)
    rows = b"".join(b"\0" + line.tobytes() for line in lines)
    head = ihdr(width, height, 8 * lines.dtype.itemsize)
    return png([head, *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def saved(pixels: NDArray[Any], form: str, mode: str | None = None, **options: Any) -> bytes:
    """`pixels` as Pillow saves them."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if mode is not None:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


# ---- DICOM ----------------------------------------------------------------------------------------------------------


def dataset(hu: Hu | None = None, **tags: Any) -> Dataset:
    """A CT slice at z = 0 in standard axial orientation; `tags` override, None deletes."""
    hu = chest() if hu is None else hu
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = CT
    values: dict[str, Any] = {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CT,
        "SOPInstanceUID": f"{SERIES}.1",
        "Modality": "CT",
        "PatientName": CANARY,
        "PatientID": "CANARY-77",
        "PatientBirthDate": "19010203",
        "SliceThickness": "1.5",
        "ConvolutionKernel": "B70f",
        "PatientPosition": "HFS",
        "StudyInstanceUID": f"{SERIES}.2",
        "SeriesInstanceUID": f"{SERIES}.3",
        "AcquisitionNumber": "1",
        "InstanceNumber": "1",
        "ImagePositionPatient": [-100.0, -150.0, 0.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": hu.shape[0],
        "Columns": hu.shape[1],
        "PixelSpacing": [0.7, 0.7],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "PixelData": (hu + np.int16(1024)).tobytes(),
        **tags,
    }
    for name, value in values.items():
        if value is not None:
            setattr(ds, name, value)
    return ds


def written(ds: Dataset, preamble: bytes = bytes(128)) -> bytes:
    """`ds` as a Part 10 file, with no check of what is in it."""
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or "1.2.3"
    out = io.BytesIO()
    ds.preamble = preamble
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def dicom(hu: Hu | None = None, **tags: Any) -> bytes:
    return written(dataset(hu, **tags))


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """One Explicit VR Little Endian element; `length` may lie."""
    stated = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, stated) + value
    return head + struct.pack("<H", stated) + value


def with_element(file: bytes, new: bytes, before: bytes = b"\xe0\x7f\x10\x00OW") -> bytes:
    """`file` with `new` placed before the element that starts with `before` (PixelData)."""
    at = file.rindex(before)
    return file[:at] + new + file[at:]


def encapsulated(frame: bytes, syntax: str, **tags: Any) -> bytes:
    """A DICOM file whose one compressed frame is `frame`."""
    from pydicom.encaps import encapsulate

    ds = dataset(**{**tags, "PixelData": None})
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return written(ds)


def series(count: int = 6, step: float = 2.0, size: int = 96, **tags: Any) -> list[bytes]:
    """`count` slices from feet to head, each unlike the others; `tags` for all, as value or function of the index."""
    files = []
    for index in range(count):
        given = {name: value(index) if callable(value) else value for name, value in tags.items()}
        given = {
            "SOPInstanceUID": f"{SERIES}.9.{index}",
            "InstanceNumber": str(index + 1),
            "ImagePositionPatient": [-100.0, -150.0, index * step],
            **given,
        }
        files.append(dicom(chest(size, seed=index), **given))
    return files


def zipped(files: Mapping[str, bytes] | Sequence[bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    named = files if isinstance(files, Mapping) else {f"{n:03}.dcm": data for n, data in enumerate(files)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in named.items():
            archive.writestr(name, data)
    return out.getvalue()


# ---- NIfTI ----------------------------------------------------------------------------------------------------------


def volume(count: int = 5, size: int = 96) -> NDArray[np.int16]:
    """HU (D, H, W) of the slices that `series` makes."""
    return np.stack([chest(size, seed=index) for index in range(count)])


def lps_affine(step: float = 2.0) -> NDArray[np.float64]:
    """Where the volume of `series` lies: (slice, row, column, 1) to LPS mm."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = step, 0.7, 0.7, 1.0
    affine[:3, 3] = (-100.0, -150.0, 0.0)
    return affine


def nifti(voxels: NDArray[Any] | None = None, ras: NDArray[np.float64] | None = None, packed: bool = False) -> bytes:
    """NIfTI-1 of (D, H, W) in LPS order, (i, j, k) being (column, row, slice); with `ras`, of (i, j, k) as it is."""
    voxels = volume() if voxels is None else voxels
    if ras is None:
        ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps_affine()[:, [2, 1, 0, 3]]
        voxels = voxels.transpose(2, 1, 0)
    data: bytes = nibabel.Nifti1Image(voxels, ras).to_bytes()
    return gzip.compress(data, 1) if packed else data


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]
