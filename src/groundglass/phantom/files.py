"""Phantoms as files: PNG in a window, a DICOM CT series, NIfTI, and the set of examples that the demo runs on."""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundglass.infer.window import to_gray
from groundglass.phantom.chest import Lesion, Phantom, chest_slice, chest_volume, draw_lesions
from groundglass.phantom.refused import head_slice, photograph
from groundglass.types import LUNG_WINDOW, Float32, Float64, Step, Window, no_step
from groundglass.write import PUBLIC, write_bytes

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset


def write_png(path: Path, gray: Float32) -> None:
    """Write gray f32 (H, W) in [0, 1] as an 8-bit PNG."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.round(gray * 255).astype(np.uint8)).save(out, format="PNG", optimize=True)
    write_bytes(path, out.getvalue(), PUBLIC)


def write_slice_png(path: Path, voxels: Float32, window: Window = LUNG_WINDOW) -> None:
    """Write one slice in HU f32 (H, W) through a window as an 8-bit PNG."""
    write_png(path, to_gray(voxels, "HU", window))


def _uid(seed: int, role: str) -> str:
    """A UID below 2.25 (DICOM PS3.5 B.2) that depends on seed and role only."""
    digest = hashlib.sha256(f"groundglass phantom {seed} {role}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def write_dicom_series(folder: Path, phantom: Phantom, *, seed: int = 0) -> None:
    """Write a phantom as a series of CT Image Storage objects (DICOM PS3.3 A.3), Explicit VR Little Endian.

    The highest slice has number 1, as scanners number a head-first scan from the top.
    """
    count = len(phantom.voxels)
    for index in range(count):
        number, out = count - index, io.BytesIO()
        _dicom(phantom, index, number, seed).save_as(out, enforce_file_format=True)
        write_bytes(folder / f"IM{number:04d}.dcm", out.getvalue(), PUBLIC)


def _dicom(phantom: Phantom, index: int, number: int, seed: int) -> FileDataset:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
    from pydicom.valuerep import DSfloat

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(_uid(seed, f"instance {index}"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_uid(0, "implementation"))
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)

    def exact(values: Float64) -> list[DSfloat]:
        return [DSfloat(float(v), auto_format=True) for v in values]

    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20200101", "120000", ""
    ds.Modality, ds.Manufacturer, ds.ReferringPhysicianName = "CT", "Groundglass", ""
    ds.SeriesDescription, ds.BodyPartExamined = "synthetic chest", "CHEST"
    ds.PatientName, ds.PatientID = "PHANTOM^CHEST", f"PHANTOM-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "synthetic: no patient was scanned"
    ds.BurnedInAnnotation = "NO"
    ds.KVP, ds.ConvolutionKernel, ds.PatientPosition = "120", "SYNTHETIC", "HFS"
    ds.SliceThickness = exact(np.array([phantom.spacing[0]]))[0]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(seed, "study"), _uid(seed, "series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(seed, "frame"), ""
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", "1", "1", str(number)
    across, down = phantom.affine[:3, 2] / phantom.spacing[2], phantom.affine[:3, 1] / phantom.spacing[1]
    ds.ImagePositionPatient = exact(phantom.affine[:3, 3] + index * phantom.affine[:3, 0])
    ds.ImageOrientationPatient = exact(np.concatenate([across, down]))
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = phantom.voxels.shape[1:]
    ds.PixelSpacing = exact(np.array(phantom.spacing[1:]))
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = "-600", "1500"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.PixelData = (phantom.voxels[index] + 1024).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def write_nifti(path: Path, phantom: Phantom) -> None:
    """Write a phantom as gzipped NIfTI-1 int16 HU; NIfTI's world is RAS and its array order column, row, slice."""
    import nibabel

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.affine[:, [2, 1, 0, 3]]
    nifti: Any = nibabel.Nifti1Image  # nibabel's constructors carry no types
    image = nifti(phantom.voxels.astype(np.int16).transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=packed, mtime=0) as out:  # the same bytes again
        out.write(image.to_bytes())
    write_bytes(path, packed.getvalue(), PUBLIC)


# The lesions of the examples, in words that a reader can check in the picture.
_GROUND_GLASS = (
    Lesion("ground_glass", -1, 0.55, 60, 0.15, 32),
    Lesion("ground_glass", 1, 0.56, 50, 0.12, 36),
    Lesion("ground_glass", 1, 0.54, 330, 0.20, 16),
    Lesion("crazy_paving", -1, 0.55, 5, 0.10, 20),
)
_CONSOLIDATION = (
    Lesion("consolidation", -1, 0.60, 65, 0.15, 30),
    Lesion("ground_glass", -1, 0.60, 20, 0.15, 30),
    Lesion("consolidation", 1, 0.61, 55, 0.10, 22),
    Lesion("ground_glass", 1, 0.59, 85, 0.20, 24),
)
_VOLUME = (
    Lesion("ground_glass", -1, 0.50, 50, 0.10, 34),
    Lesion("ground_glass", 1, 0.60, 60, 0.10, 38),
    Lesion("consolidation", -1, 0.70, 70, 0.10, 24),
    Lesion("crazy_paving", 1, 0.42, 20, 0.15, 26),
)


def write_examples(folder: Path) -> None:
    """Write the examples: healthy, ground-glass, consolidation, head, photo (.png), volume/ (DICOM), volume.nii.gz.

    Head and photo must be refused. The same pixels come out on every run.

    Raises OutputError if the folder cannot be written.
    """
    for name, seed, level, lesions in (
        ("healthy", 17, 0.5, ()),
        ("ground-glass", 12, 0.55, _GROUND_GLASS),
        ("consolidation", 13, 0.60, _CONSOLIDATION),
    ):
        made = chest_slice(np.random.default_rng(seed), level=level, lesions=lesions, size=384)
        write_slice_png(folder / f"{name}.png", made.voxels[0])
    volume = chest_volume(np.random.default_rng(14), slices=12, levels=(0.3, 0.8), lesions=_VOLUME, size=256)
    write_dicom_series(folder / "volume", volume, seed=14)
    write_nifti(folder / "volume.nii.gz", volume)
    write_slice_png(folder / "head.png", head_slice(np.random.default_rng(15), size=384), Window(40.0, 100.0))
    write_png(folder / "photo.png", photograph(np.random.default_rng(16), size=384))


# With less of the lung opaque, a picture of the drawn set shows nothing that a label could mean.
_LEAST_OPAQUE = 0.03


def write_set(folder: Path, count: int, seed: int = 0, size: int = 512, step: Step = no_step) -> None:
    """Write `count` chests as LABEL/PATIENT/PATIENT.png, one slice of each; every second one has opacities.

    LABEL is covid or non-covid. The same words give the same pixels, and a larger set begins with the smaller one.
    Raises OutputError if the folder cannot be written.
    """
    for number in range(count):
        label, patient = ("non-covid", "covid")[number % 2], f"drawn-{number + 1:04d}"
        drawn = _labelled(np.random.default_rng([seed, number]), ill=label == "covid", size=size)
        write_slice_png(folder / label / patient / f"{patient}.png", drawn.voxels[0])
        step("drawing", number + 1, count)


def _labelled(rng: np.random.Generator, *, ill: bool, size: int) -> Phantom:
    """A slice of a chest of its own, healthy or with opacities that are seen."""
    while True:
        level = float(rng.uniform(0.4, 0.7))
        lesions = draw_lesions(rng, level=level, severity=float(rng.uniform(0.3, 1.0))) if ill else ()
        drawn = chest_slice(rng, level=level, lesions=lesions, size=size)
        if not ill or drawn.lesions.sum() >= _LEAST_OPAQUE * drawn.lungs.sum():
            return drawn
