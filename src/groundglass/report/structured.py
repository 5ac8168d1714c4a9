"""The verdict as a Comprehensive 3D SR by TID 1500 (PS3.3 A.35.13), its key slices as a Key Object Selection (A.35.4).

Needs the `dicom` extra.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from groundglass.infer.aggregate import RULE
from groundglass.read.dicom import MANUFACTURER
from groundglass.report.reported import RESEARCH, Reported, finished
from groundglass.report.words import CT_WORDS, RESEARCH_USE_ONLY, second_question
from groundglass.types import Prediction

SCHEME = "99GROUNDGLASS"
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
LUNG = Code("39607008", "SCT", "Lung")
RIGHT_LUNG, LEFT_LUNG = Code("3341006", "SCT", "Right lung"), Code("44029006", "SCT", "Left lung")
# SNOMED CT International since January 2021: "Pneumonia caused by severe acute respiratory syndrome coronavirus 2".
COVID_PNEUMONIA = Code("882784691000119100", "SCT", "Pneumonia caused by SARS-CoV-2")
CT_OF_CHEST = Code("169069000", "SCT", "CT of chest")
POSITIVE, NEGATIVE = Code("10828004", "SCT", "Positive"), Code("260385009", "SCT", "Negative")
PROBABILITY = Code("122157", "DCM", "Probability")
# The standard has no codes for these.
THRESHOLD = Code("threshold", SCHEME, "Operating threshold of the probability")
OPAQUE_SHARE = Code("opaque-share", SCHEME, "Share of lung on judged slices that is opaque")
CT_CLASS = Code("ct-class", SCHEME, "CT severity class by share of lung on judged slices")
COVID_GIVEN_OPACITY = Code("covid-if-opaque", SCHEME, "Probability of COVID-19 given the opacities")
JUDGED = Code("judged-slices", SCHEME, "Number of slices judged")


def structured_report(reported: Reported) -> list[Dataset]:
    """One SR: a group for the series, then one for each key slice; preliminary and unverified."""
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=reported.uid("device"), name=MANUFACTURER, manufacturer_name=MANUFACTURER,
            model_name=reported.model.name, serial_number=reported.model.sha256,
        ),
    )  # fmt: skip
    groups = [_of_series(reported), *(_of_slice(reported, rank) for rank in range(len(reported.findings.key)))]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=CT_OF_CHEST,
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    made = sr.Comprehensive3DSR(
        evidence=list(reported.sources),
        content=content,
        is_complete=True,
        is_final=False,
        is_verified=False,
        **reported.place("sr", 1),
    )
    made.ManufacturerModelName = reported.equipment["manufacturer_model_name"]
    made.SoftwareVersions = reported.equipment["software_versions"]
    made.DeviceSerialNumber = reported.equipment["device_serial_number"]
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "Groundglass private codes"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    made.CodingSchemeIdentificationSequence = [scheme]
    return [finished(made, reported, "Groundglass result")]


def _algorithm(reported: Reported) -> sr.AlgorithmIdentification:
    card, result = reported.model.card, reported.result
    return sr.AlgorithmIdentification(
        name=f"groundglass {card.name}",
        version=f"{card.version}, software {reported.version}, sha256 {reported.model.sha256}",
        parameters=[
            f"lung-field network sha256 {reported.model.field.sha256}",
            f"window center {card.window.center:g} width {card.window.width:g} HU",
            f"input {card.size} x {card.size}",
            f"temperature {card.temperature:.6g}",
            f"threshold {result.threshold!r}, operating point {reported.point or 'none'}",
            f"views {reported.answer.examination.views}",
            f"series probability: {RULE}",
            *([f"cells opaque from {card.opaque_at:g}"] if card.opaque_at is not None else []),
        ],
    )


def _tracking(reported: Reported, *role: object) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=reported.uid("tracking", *role), identifier=" ".join(str(r) for r in role))


def _number(name: Code, value: float) -> sr.Measurement:
    return sr.Measurement(name=name, value=value, unit=codes.UCUM.NoUnits)


def _opaque(share: float, site: Code = LUNG) -> sr.Measurement:
    """A share of lung in per cent, with the lung that it is of (TID 300)."""
    return sr.Measurement(
        name=OPAQUE_SHARE, value=100 * share, unit=codes.UCUM.Percent, finding_sites=[sr.FindingSite(site)]
    )


def _severity(result: Prediction) -> list[sr.Measurement]:
    """Opaque shares of both lungs and of each, and the second question; empty without an opacity map."""
    found = []
    if result.opaque is not None:
        sides = ((result.opaque.right, RIGHT_LUNG), (result.opaque.left, LEFT_LUNG))
        found = [_opaque(result.opaque.total), *(_opaque(share, site) for share, site in sides if share is not None)]
    if result.differential is not None and result.differential.probability is not None:
        found.append(_number(COVID_GIVEN_OPACITY, result.differential.probability))
    return found


def _class(result: Prediction) -> list[sr.QualitativeEvaluation]:
    """The severity class; empty without an opacity map."""
    name = result.ct_class
    if name is None:
        return []
    return [sr.QualitativeEvaluation(CT_CLASS, Code(name, SCHEME, f"{name}: {CT_WORDS[name]}"))]


def _verdict(positive: bool) -> list[sr.QualitativeEvaluation]:
    return [sr.QualitativeEvaluation(name=COVID_PNEUMONIA, value=POSITIVE if positive else NEGATIVE)]


def _source(instance: Dataset) -> sr.SourceImageForMeasurementGroup:
    return sr.SourceImageForMeasurementGroup(instance.SOPClassUID, instance.SOPInstanceUID)


def _of_series(reported: Reported) -> sr.MeasurementsAndQualitativeEvaluations:
    result = reported.result
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(reported, "series"),
        finding_type=PNEUMONIA,
        finding_sites=[sr.FindingSite(LUNG)],
        algorithm_id=_algorithm(reported),
        measurements=[
            _number(PROBABILITY, result.probability),
            _number(THRESHOLD, result.threshold),
            _number(JUDGED, len(result.slices)),
            *_severity(result),
        ],
        qualitative_evaluations=[*_verdict(result.label == "covid"), *_class(result)],
        source_images=[_source(one) for one in reported.sources],
    )
    second = [] if result.differential is None else [second_question(result.differential)]
    for words in (RESEARCH, RESEARCH_USE_ONLY, *second, *(f"{n.code}: {n.detail}" for n in result.notices)):
        _comment(group, words)
    return group


def _of_slice(reported: Reported, rank: int) -> sr.MeasurementsAndQualitativeEvaluations:
    index = reported.findings.key[rank].index
    probability = dict(zip(reported.result.slices, reported.result.slice_probabilities, strict=True))[index]
    opaque = [_opaque(one.share) for one in reported.findings.opacities[rank : rank + 1]]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(reported, "key slice", rank + 1),
        finding_type=PNEUMONIA,
        finding_sites=[sr.FindingSite(LUNG)],
        algorithm_id=_algorithm(reported),
        measurements=[_number(PROBABILITY, probability), *opaque],
        qualitative_evaluations=_verdict(probability >= reported.result.threshold),
        source_images=[_source(reported.sources[index])],
    )
    _comment(group, f"Key slice {rank + 1} of {len(reported.findings.key)}. {RESEARCH}")
    return group


def _comment(group: sr.MeasurementsAndQualitativeEvaluations, words: str) -> None:
    """TID 1501 is extensible; a comment is how a warning reaches those who read the report."""
    text = sr.TextContentItem(name=codes.DCM.Comment, value=words, relationship_type=sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(text)


def key_images(reported: Reported) -> Sequence[Dataset]:
    """One Key Object Selection "Of Interest" that names the key slices (TID 2010)."""
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=[reported.sources[a.index] for a in reported.findings.key],
        description=f"Slices with the highest probability of COVID-19 pneumonia. {RESEARCH}",
    )
    made = hd.ko.KeyObjectSelectionDocument(
        evidence=[reported.sources[a.index] for a in reported.findings.key],
        content=content,
        **reported.place("key-images", 1),
    )
    return [finished(made, reported, "Groundglass key images")]
