"""Is this an axial lung CT at all? Accepts a scan, or refuses it with a reason that says what to give instead."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from groundglass.errors import Reason
from groundglass.infer.lung_field import LEAST_LUNG, Field, Fields
from groundglass.types import Float32, Notice

# What a picture seems to be, in words that finish the sentence "expected an axial lung CT, got what looks like ...".
IN_WORDS = {
    "axial_lung_ct": "an axial lung CT",
    "turned_lung_ct": "an axial lung CT that is turned",
    "mediastinal_window_ct": "a CT in a mediastinal window, where lung is black and shows nothing",
    "coronal_ct": "a coronal or sagittal CT",
    "ct_without_lung": "a CT slice without lung",
    "head_ct": "a head CT",
    "chest_xray": "a chest X-ray",
    "inverted": "an inverted picture",
    "other": "something other than a CT",
}
INSTEAD = {
    "mediastinal_window_ct": "export the slice in a lung window (center -600, width 1500), or give the DICOM file",
    "coronal_ct": "give the original axial slices",
    "ct_without_lung": "give slices at the level of the lungs",
    "inverted": "give it with air dark and bone bright",
}
# The flaws of a picture that shows lung: the code of the refusal, and its reason.
FLAWED = {
    "cut": ("cut_lungs", Reason("whole lungs", "lungs that the border of the picture cuts", "give the whole slice")),
    "erased": (
        "cut_lungs",
        Reason("a whole slice", "one of which a part was erased or lost", "give the original slice"),
    ),
    "several": (
        "several_slices",
        Reason("one slice", "several in one picture", "give each slice as a picture of its own"),
    ),
    "other_anatomy": (
        "not_axial_lung_ct",
        Reason("an axial lung CT", "what looks like another part of the body", "give slices at the level of the lungs"),
    ),
    "few_pixels": (
        "few_pixels",
        Reason("a slice of 100 real pixels a side or more", "a preview or an enlarged one", "give the original slice"),
    ),
    "compressed": (
        "compressed",
        Reason(
            "a slice without visible JPEG blocks",
            "one compressed until they hide ground-glass",
            "give the original slice",
        ),
    ),
}

# A chest series shows lung on most of its slices. Below this share, something may be wrong.
FEW = 0.3


def is_flat(gray: Float32) -> bool:
    """Whether a slice (H, W) has hardly any contrast: 98 % of it within two of 255 gray levels."""
    low, high = np.percentile(gray, (1, 99))
    return bool(high - low < 2 / 255)


def shows_lung(field: Field, accept: float) -> bool:
    """Whether a slice is an axial lung CT with enough lung to judge; `accept` is the least probability of that kind."""
    return not field.flaw and field.has_lung(accept)


def mostly_flawed(found: Collection[Field], accept: float) -> bool:
    """Whether more slices of a scan have a flaw than can be judged.

    Such a scan is cropped or made of figures as a whole, so the few slices that pass say nothing of the lungs.
    """
    # a slice of another part of the body is no flaw of a scan of the chest
    flaws = [flaw for flaw in _flaws(found, accept) if flaw != "other_anatomy"]
    return len(flaws) > sum(shows_lung(f, accept) for f in found)


def _flaws(found: Collection[Field], accept: float) -> list[str]:
    """The flaws of pictures with lung.

    Half of `accept` is enough: a cut slice or a figure is less like an axial lung CT than a whole slice, but more than
    anything else.
    """
    return [f.flaw for f in found if f.flaw and 2 * f.accepted >= accept and f.fraction >= LEAST_LUNG]


def gate(flat: bool, found: Sequence[Field], accept: float) -> tuple[str, Reason] | None:
    """None if enough slices show lung; otherwise the code and the reason of the refusal.

    The reason names what most slices look like. A CT slice without lung has another code than a picture of something
    else.
    """
    if any(shows_lung(f, accept) for f in found) and not mostly_flawed(found, accept):
        return None
    if flat:
        return "flat_image", Reason("some contrast", "a constant picture", "give the original slice", about="image")
    if flaws := _flaws(found, accept):
        return FLAWED[max(sorted(set(flaws)), key=flaws.count)]
    if any(f.accepted >= accept for f in found):
        return "no_lung", Reason(
            f"at least {LEAST_LUNG:.0%} of a slice", "less", INSTEAD["ct_without_lung"], about="lung"
        )
    votes = np.sum([f.kinds for f in found], axis=0)
    kind = _most_likely_refused(votes)
    if kind == "ct_without_lung":
        return "no_lung", Reason("an axial lung CT", f"what looks like {IN_WORDS[kind]}", INSTEAD[kind])
    instead = INSTEAD.get(kind, "give an axial slice of a chest CT in a lung window, or the DICOM series")
    return "not_axial_lung_ct", Reason("an axial lung CT", f"what looks like {IN_WORDS[kind]}", instead)


def _most_likely_refused(votes: Float32) -> str:
    from groundglass.infer.lung_field import ACCEPTED_KINDS, KINDS

    refused = [i for i, k in enumerate(KINDS) if k not in ACCEPTED_KINDS]
    return KINDS[max(refused, key=lambda i: votes[i])]


def notices(found: Fields, chosen: Sequence[int]) -> tuple[Notice, ...]:
    """The notices of a result that come from the gate."""
    out: list[Notice] = []
    if len(chosen) < FEW * len(found):
        detail = f"Only {len(chosen)} of {len(found)} slices look like axial lung CT; the verdict rests on these alone."
        out.append(Notice("few_lung_slices", detail))
    turned = sum(found[i].kind == "turned_lung_ct" for i in chosen)
    if 2 * turned > len(chosen):
        detail = "The slice seems upside down or turned by a quarter, and the score is less sure; give it spine down."
        out.append(Notice("turned", detail))
    boxed = [i for i in chosen if found[i].box is not None]
    if boxed:
        out.append(_cropped(found, boxed))
    return tuple(out)


def _cropped(found: Fields, boxed: Sequence[int]) -> Notice:
    rows, columns = found[boxed[0]].box or (slice(0, 0), slice(0, 0))
    where = f"rows {rows.start + 1} to {rows.stop}, columns {columns.start + 1} to {columns.stop}"
    many = "" if len(boxed) == 1 else f", and so on {len(boxed) - 1} more slices"
    return Notice("cropped", f"Only a part of the picture shows an axial lung CT ({where}{many}); it alone was judged.")
