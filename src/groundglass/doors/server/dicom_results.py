"""An answer as DICOM objects, where the dicom extra is there: structured report and secondary capture."""

from __future__ import annotations

import logging
from importlib.util import find_spec

from groundglass.errors import InputError
from groundglass.infer.findings import Answer
from groundglass.infer.model import Model
from groundglass.infer.predict import Examination
from groundglass.read.isolate import Decoder
from groundglass.report import dicom
from groundglass.types import Prediction, Scan

# kind of `report.dicom` -> what the page calls it
TITLES = {"sr": "Structured report (DICOM SR)", "sc": "Picture (DICOM Secondary Capture)"}


def dicom_results(scan: Scan, examination: Examination, model: Model, decoder: Decoder) -> dict[str, bytes]:
    """Part 10 files by name (`sr-1`, `sc-1`, ...); empty where the scan was refused, or did not come as DICOM.

    A fault of ours costs the answer its objects and is logged by its kind alone; it never costs the answer.
    """
    if find_spec("highdicom") is None or not isinstance(examination.result, Prediction) or not scan.files:
        return {}
    made: dict[str, bytes] = {}
    try:
        reported = dicom.report(Answer(scan, examination), model, decoder)
        for kind, dataset in dicom.objects(reported, TITLES):
            number = 1 + sum(name.startswith(f"{kind}-") for name in made)
            made[f"{kind}-{number}"] = dicom.to_bytes(dataset)
    except InputError:  # it has an answer, and no study to go back into
        return {}
    except Exception as error:
        logging.getLogger(__name__).error("no DICOM results: %s", type(error).__name__)
        return {}
    return made
