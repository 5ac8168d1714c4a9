"""What the page says beside results: its keys, the columns of its worklist, and the topics of its help."""

from __future__ import annotations

# key -> what it does; the page's script acts on them
KEYS = (
    ("↑ ↓ ← →", "next slice towards the head (up, right) or the feet (down, left)"),
    ("Page ↑ ↓, Home, End", "on the picture: ten slices on, first and last slice"),
    ("1 2 3 4", "window: lung, soft tissue, bone, wide"),
    ("C", "overlay, side by side, wipe"),
    ("H", "what was found, on and off"),
    ("L", "lung outline, on and off"),
    ("+ − 0", "zoom in, zoom out, whole slice"),
    ("N P", "next and previous row of the worklist"),
    ("?", "this list"),
)
COLUMNS = (
    ("name", "Input"),
    ("answer", "Answer"),
    ("probability", "Probability"),
    ("opaque", "Opaque lung"),
    ("threshold", "Threshold"),
    ("slices", "Slices"),
    ("seen", "Looked at"),
)
# heading -> its sentences
TOPICS = (
    (
        "What you get",
        (
            "The picture comes first: the slice with the highest number, with the lung that looks opaque tinted"
            " and outlined. Beside it stand the answer in one sentence, its number with the threshold, and the "
            "share of lung that looks opaque.",
            "The number is a score between 0 and 100 % for opacities of the kind that COVID-19 pneumonia makes."
            " Other diseases make such opacities too. Below the threshold does not mean healthy.",
            "The curve below the picture runs from the feet to the head: the area is the share of opaque lung, "
            "the line is the number of each slice. Click it or drag along it.",
            "R and L are the patient's right and left. A question mark stands beside them if the file does not "
            "say which is which. The bar is so many centimetres long.",
            "Move the pointer over the picture: HU, and the share of the lung that the opacity under it takes.",
        ),
    ),
    (
        "What can be given",
        (
            "Pictures (PNG, JPEG, WebP, TIFF), DICOM, NIfTI, a zip, a folder, or many of them. Best is the "
            "original axial DICOM series of the chest.",
            "What is unsuitable gets no number. The page says what it seems to be and what to give instead.",
        ),
    ),
    (
        "Several patients",
        (
            "Many files make a worklist. Sort it by number or by share of opaque lung, open a row, go on with N"
            " and P, save it as CSV.",
            "Stop keeps what waits; Continue takes it up again, also what failed. The list lives as long as the"
            " page is open.",
        ),
    ),
    (
        "What to keep",
        (
            "Print a report makes one page with pictures, numbers, model and date under the name of your file; "
            "save it as PDF from the print dialog of the browser.",
            "Download all gives one zip: the result as JSON, the picture, and for a DICOM series a structured "
            "report and secondary captures to store beside it.",
            "Nothing that is sent is stored. Results are forgotten when the page is closed, or ten minutes "
            "after they were last looked at; the page then sends the file again.",
        ),
    ),
)
