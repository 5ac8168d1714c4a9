"""DICOM files that several tests read: a good one, compressed and deflated ones, and those that pydicom ships."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from openjpeg.utils import encode_array
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from groundglass.read.limits import MIB
from groundglass.types import Scan
from tests.read.builders import chest, dataset, dicom, encapsulated, written

HU = chest()
GOOD = dicom()
STORED = HU.astype(np.int32) + 1024
JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


def codes(scan: Scan) -> set[str]:
    return {notice.code for notice in scan.notices}


def sample(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom ships {name}"
    return Path(path).read_bytes()


def deflated(surplus: int = 0) -> bytes:
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    good = written(ds)
    if not surplus:
        return good
    end = 144 + struct.unpack_from("<I", good, 140)[0]
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = GOOD[144 + struct.unpack_from("<I", GOOD, 140)[0] :]
    packed = engine.compress(body + struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, surplus))
    packed += b"".join(engine.compress(bytes(MIB)) for _ in range(surplus // MIB))
    return good[:end] + packed + engine.flush()


def compressed(syntax: str, **tags: Any) -> bytes:
    ds = dataset(STORED.astype(np.int16), **{"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11, **tags})
    ds.PixelData = STORED.astype(np.uint16).tobytes()
    if syntax == JPEG2000Lossless:
        return encapsulated(j2k_frame(), syntax, PixelRepresentation=0, BitsStored=12, HighBit=11)
    ds.compress(syntax, generate_instance_uid=False)
    return written(ds)


def j2k_frame() -> bytes:
    return bytes(encode_array(STORED.astype(np.uint16), bits_stored=12))
