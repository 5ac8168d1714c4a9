"""Adopting a folder: what the set's TOML says must be so, or nothing comes out."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundglass.data import collect, manifest, protocol, sources
from groundglass.errors import ConfigError, ManifestError
from tests.data.records import save

TOML = """
name = "mine"
title = "t"
url = "u"
size = "s"
labels = "l"
licence = "free"
citation = "c"
get = "g"
role = "train"
[layout]
folder = "mine"
[[layout.images]]
pattern = 'covid/(?P<who>[^/-]+)-[0-9]+\\.png'
label = "covid"
patient = "{who}"
[[layout.images]]
pattern = 'healthy/.+\\.png'
label = "non-covid"
"""


def mine(extra: str = "") -> sources.Source:
    return sources.parse((TOML + extra).encode())


def gray(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64), dtype=np.uint8)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for n, name in enumerate(["covid/ann-1", "covid/ann-2", "covid/bob-1", "healthy/x", "healthy/y"]):
        save(gray(n), tmp_path / "mine" / f"{name}.png")
    return tmp_path / "mine"


def test_names_spell_patient_and_label(place: Path) -> None:
    records = collect.adopt(mine(), place, place.parent)
    assert [(r.path, r.patient, r.label, r.width, r.height, r.licence) for r in records] == [
        ("mine/covid/ann-1.png", "mine:ann", "covid", 64, 64, "free"),
        ("mine/covid/ann-2.png", "mine:ann", "covid", 64, 64, "free"),
        ("mine/covid/bob-1.png", "mine:bob", "covid", 64, 64, "free"),
        ("mine/healthy/x.png", None, "non-covid", 64, 64, "free"),
        ("mine/healthy/y.png", None, "non-covid", 64, 64, "free"),
    ]
    assert all(r.sha256 == collect.file_sha256(place.parent / r.path) for r in records)


TABLE = """
[[layout.tables]]
file = "who.csv"
path = "healthy/{File name}"
patient = "{Patient ID}"
"""


def test_a_table_may_leave_out_endings_and_spill_spaces(place: Path) -> None:
    (place / "who.csv").write_text("File name,Patient ID\nx,Patient 1\ny.png, Patient  2 \n,\n")
    records = collect.adopt(mine(TABLE), place, place.parent)
    assert [r.patient for r in records if r.label == "non-covid"] == ["mine:Patient 1", "mine:Patient 2"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("File name,Patient ID\nz.png,p\n", "row 1: expected an image of the folder, got 'healthy/z.png'"),
        ("Name,Patient ID\nx.png,p\n", "a column 'File name'"),
        (None, "who.csv: expected a table of mine, got no such file"),
    ],
)
def test_a_table_that_does_not_fit_is_a_problem(table: str | None, said: str, place: Path) -> None:
    if table is not None:
        (place / "who.csv").write_text(table)
    with pytest.raises(ManifestError) as caught:
        collect.adopt(mine(TABLE), place, place.parent)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems


def test_an_empty_class_is_a_problem(place: Path) -> None:
    for file in (place / "healthy").iterdir():
        file.unlink()
    with pytest.raises(ManifestError, match="class non-covid: expected one file or more"):
        collect.adopt(mine(), place, place.parent)


def test_another_folder_than_the_toml_says_is_refused(tmp_path: Path) -> None:
    save(gray(0), tmp_path / "other" / "a.png")
    with pytest.raises(ManifestError, match="is this the folder of mine"):
        collect.adopt(mine(), tmp_path / "other", tmp_path)
    with pytest.raises(ManifestError, match="a folder to adopt"):
        collect.adopt(mine(), tmp_path / "nowhere", tmp_path)


def test_counts_of_the_toml_must_hold(place: Path) -> None:
    with pytest.raises(ManifestError, match="3 files like"):
        collect.adopt(mine("count = 3\n"), place, place.parent)


def test_a_folder_outside_the_data_root_is_refused(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ConfigError, match="inside the data root"):
        collect.adopt(mine(), place, tmp_path_factory.mktemp("root"))


def test_links_are_not_followed(place: Path) -> None:
    (place / "healthy" / "link.png").symlink_to(place / "healthy" / "x.png")
    assert len(collect.adopt(mine(), place, place.parent)) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TOML + "colour = 1\n", r"layout.images\[1\].colour"),
        (TOML.replace('role = "train"', 'role = "sell"'), "role: expected one of train, test, refuse"),
        (TOML.replace('title = "t"', "title = 3"), "title: expected str, got int"),
        (TOML.replace('title = "t"\n', ""), "title: expected a value, got none"),
        (TOML.replace("[^/-]+)", "[^/-]+"), "a regular expression"),
        (TOML.replace('"mine"\n[[', '"../mine"\n[['), "inside the set's folder"),
        (
            TOML + "[[layout.tables]]\nfile='a'\npath='b'\nlabels={x='y'}\n",
            "labels.x: expected one of covid, non",
        ),
        (TOML + "[[downloads]]\nurl='file:///etc/passwd'\nto='a'\n", "http or https"),
        ("a = [" * 5000, "a TOML file, got"),
    ],
)
def test_an_unknown_or_wrong_key_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        sources.parse(text.encode())
    assert caught.value.exit_status == 2


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_source_or_refused(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        sources.parse(data)


def test_every_set_that_ships_is_described_whole() -> None:
    for source in sources.every():
        assert sources.find(source.name) == source
        assert all([source.title, source.url, source.size, source.labels, source.licence, source.citation, source.get])
    assert {"covid-ct", "covid-ct-kaggle", "covid-chestxray", "deepcovid", "sars-cov-2-ct", "mosmed"} <= set(
        sources.names()
    )
    assert {"mosmed-studies", "luna", "covidx-ct", "covid-ct-md", "image-folder", "csv", "dicom-tree"} <= set(
        sources.names()
    )


def test_axial_ct_rows_are_kept_and_x_rays_are_to_be_refused(tmp_path: Path) -> None:
    place = tmp_path / "covid-chestxray"
    for n, name in enumerate("abcdef"):
        save(gray(n), place / "images" / f"{name}.png")
    (place / "metadata.csv").write_text(
        "patientid,finding,view,modality,folder,filename\n"
        "1,Pneumonia/Viral/COVID-19,Axial,CT,images,a.png\n"
        "2,No Finding,Axial,CT,images,b.png\n"
        "1,Pneumonia/Viral/COVID-19,PA,X-ray,images,c.png\n"
        "3,Pneumonia/Viral/COVID-19,Coronal,CT,images,d.png\n"
        "4,Pneumonia/Viral/COVID-19,Axial,CT,volumes,e.nii.gz\n"
        "5,todo,Axial,CT,images,e.png\n"
        '6,"COVID-19, ARDS",Axial,CT,images,f.png\n'
    )
    records = collect.adopt(sources.find("covid-chestxray"), place, tmp_path)
    assert [(r.path[-5:], r.label) for r in records] == [
        ("a.png", "covid"),
        ("b.png", "non-covid"),
        ("c.png", None),
        ("d.png", None),
        ("e.png", None),
        ("f.png", "covid"),
    ]


def test_covidx_lists_give_class_split_and_patient(tmp_path: Path) -> None:
    names = ["NCP_96_1328_0032.png", "CP_7_3_0001.png", "volume-covid19-A-0001_0060.png", "COVIDCTMD-P001-IM0001.png"]
    for n, name in enumerate(names):
        save(gray(n), tmp_path / "covidx-ct" / "3A_images" / name)
    for split, listed in (("train", names[:2]), ("val", names[2:3]), ("test", names[3:])):
        lines = "".join(f"{name} {1 if name.startswith('CP') else 2} 1 2 3 4\n" for name in listed)
        (tmp_path / "covidx-ct" / f"{split}_COVIDx_CT-3A.txt").write_text(lines)
    records = collect.adopt(sources.find("covidx-ct"), tmp_path / "covidx-ct", tmp_path)
    assert {(r.patient, r.label, r.split) for r in records} == {
        ("covidx-ct:NCP_96", "covid", "train"),
        ("covidx-ct:CP_7", "non-covid", "train"),
        ("covidx-ct:volume-covid19-A-0001", "covid", "val"),
        ("covidx-ct:COVIDCTMD-P001", "covid", "test"),
    }


@pytest.mark.parametrize(
    ("name", "path", "patient"),
    [
        ("covidx-ct", "3A_images/A002304-01-12-1901-NA-CT-CHEST-70694-4-0039.png", "A002304"),
        ("covidx-ct", "3A_images/137covid_patient100_SR_2_IM00028.png", "137covid_patient100"),
        ("covidx-ct", "3A_images/radiopaedia-76307-87945-1-0007.png", "radiopaedia-76307"),
        ("covidx-ct", "3A_images/LIDC-IDRI-0011-1.3.6.1.4-0100.png", "LIDC-IDRI-0011"),
        ("covidx-ct", "3A_images/volume-covid19-A-0261_1-0040.png", "volume-covid19-A-0261"),
        ("covidx-ct", "3A_images/volume-covid19-A-0698_ct-0017.png", "volume-covid19-A-0698"),
        ("covidx-ct", "3A_images/COVIDCTMD-P001-98C14734-ASSH_1.png", "COVIDCTMD-P001"),
        ("covidx-ct", "3A_images/HUST-Patient518-0012.png", "HUST-Patient518"),
        ("covidx-ct", "3A_images/STOIC-10011-0012.png", "STOIC-10011"),
        ("covid-ct-md", "COVID-19 subjects/P001/98C14734-ASSH_1.dcm", "P001"),
        ("covid-ct-md", "CAP subjects/cap001/IM0001.dcm", "cap001"),
        ("covid-ct-md", "Normal Cases/normal001/IM0001.dcm", "normal001"),
    ],
)
def test_a_name_spells_the_patient_whatever_the_series(name: str, path: str, patient: str) -> None:
    matches = (rule.pattern.fullmatch(path) for rule in sources.find(name).layout.images)
    assert next(match["patient"] for match in matches if match) == patient


def test_an_image_folder_and_a_table_of_ones_own_are_taken(folder: Path) -> None:
    records = collect.adopt(sources.find("image-folder"), folder, folder.parent)
    assert Counter((r.patient, r.label) for r in records) == {
        (f"image-folder:p{n}", "covid" if n < 3 else "non-covid"): 2 for n in range(6)
    }
    lines = [f"{r.path.removeprefix('set/')},{r.label},{r.patient},train\n" for r in records]
    (folder / "labels.csv").write_text("\ufeffpath,label,patient,split\n" + "".join(lines))
    listed = collect.adopt(sources.find("csv"), folder, folder.parent)
    assert [(r.path, r.label, r.split) for r in listed] == [(r.path, r.label, "train") for r in records]


SHARED = {
    "covid-ct": (746, 349, 384),
    "sars-cov-2-ct": (2481, 1252, 0),
    "mosmed": (636, 484, 636),
    "luna": (160, 0, 160),
    "out-of-distribution": (119, 0, 0),
    "covid-19-ny-sbu": (12, 6, 4),
    "lung-pet-ct-dx": (30, 0, 1),
    "covid-lesion-masks": (5, 5, 0),
    "lung-window-masks": (4, 0, 0),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SHARED)
def test_every_shared_set_is_adopted_in_its_own_layout(name: str, data_root: Path) -> None:
    source = sources.find(name)
    records = collect.adopt(source, data_root / source.layout.folder, data_root, shape=lambda file: (1, 1))
    covid = sum(r.label == "covid" for r in records)
    assert (len(records), covid, len({r.patient for r in records} - {None})) == SHARED[name]
    assert manifest.parse(manifest.to_csv(records).encode()) == records


@pytest.mark.data
def test_bare_dicom_is_a_tree_without_patients(data_root: Path) -> None:
    records = collect.adopt(sources.find("dicom-tree"), data_root / "dicom" / "bare", data_root)
    assert [(r.path, r.unit, r.patient, r.width) for r in records] == [
        ("dicom/bare/0.dcm", "HU", None, 512),
        ("dicom/bare/1.dcm", "HU", None, 512),
    ]


@pytest.mark.data
def test_the_committed_manifests_are_what_the_command_makes(data_root: Path, tmp_path: Path) -> None:
    committed = Path(__file__).resolve().parents[2] / "manifests"
    hashes = protocol.write(data_root, tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {
        f.name: f.read_bytes() for f in committed.iterdir() if f.name != "README.md"
    }
    assert len(hashes) == 12
