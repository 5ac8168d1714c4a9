"""Pictures that are not one whole axial slice are refused with a code of their own, or the slice is cut out of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

import groundglass as gg
from groundglass.errors import INPUT_CODES, ModelError
from groundglass.infer.frame import FRAMES, frame_inputs, read_frame_head
from groundglass.infer.gate import FLAWED
from groundglass.infer.look import FLAWS, look
from groundglass.infer.lung_field import fields
from groundglass.infer.model import Model, load
from groundglass.infer.panels import panels
from groundglass.infer.transforms import resize
from groundglass.infer.window import to_gray
from groundglass.phantom.chest import chest_slice, draw_lesions
from groundglass.phantom.elsewhere import ELSEWHERE
from groundglass.types import Float32, Prediction, Refusal, Scan


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


@pytest.fixture(scope="module")
def slices() -> list[Float32]:
    """Four drawn chests, two with disease, as gray in a lung window."""
    made = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lesions = draw_lesions(rng, level=0.5, severity=0.7) if seed % 2 else ()
        made.append(to_gray(chest_slice(rng, level=0.5, lesions=lesions, size=384).voxels[0], "HU"))
    return made


def answer(gray: Float32, model: Model) -> Prediction | Refusal:
    return gg.predict(Scan(np.ascontiguousarray(gray, np.float32)[None], "gray", None, "made"), model)


def code(gray: Float32, model: Model) -> str:
    """The code of the refusal, or an empty string where there is an answer."""
    result = answer(gray, model)
    return result.code if isinstance(result, Refusal) else ""


def resampled(gray: Float32, side: int, how: Image.Resampling) -> Float32:
    return np.asarray(Image.fromarray(gray).resize((side, side), how), np.float32).clip(0, 1)


def jpeg(gray: Float32, quality: int) -> Float32:
    file = io.BytesIO()
    Image.fromarray(np.rint(gray * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def test_whole_slices_pass(slices: list[Float32], model: Model) -> None:
    assert [code(s, model) for s in slices] == [""] * 4
    assert all(f.flaw == "" and f.box is None for f in look(np.stack(slices), model.field, model.frame))


def test_the_lung_field_is_what_it_was_without_a_look_at_the_frame(slices: list[Float32], model: Model) -> None:
    for looked, plain in zip(
        look(np.stack(slices), model.field, model.frame), fields(np.stack(slices), model.field), strict=True
    ):
        assert np.array_equal(looked.lungs, plain.lungs)
        assert np.array_equal(looked.kinds, plain.kinds)


@pytest.mark.parametrize("box", [np.s_[:, :192], np.s_[:, 192:]], ids=["left", "right"])
def test_half_slices_are_refused(box: tuple[slice, slice], slices: list[Float32], model: Model) -> None:
    assert {code(s[box], model) for s in slices} == {"cut_lungs"}


def test_crops_around_the_spine_are_refused_but_for_few(slices: list[Float32], model: Model) -> None:
    assert [code(s[180:330, 110:270], model) for s in slices].count("cut_lungs") >= 3


@pytest.mark.parametrize("white", [0.0, 1.0])
@pytest.mark.parametrize("gap", [0, 8])
def test_several_slices_in_one_picture_are_refused(gap: int, white: float, slices: list[Float32], model: Model) -> None:
    tiles = [np.pad(s, gap, constant_values=white) for s in slices]
    pair, four = np.hstack(tiles[:2]), np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    assert code(pair, model) == code(four, model) == "several_slices"


@pytest.mark.parametrize("side", [32, 48, 64])
@pytest.mark.parametrize("how", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_preview_is_refused_however_large_it_was_made(
    how: Image.Resampling, side: int, slices: list[Float32], model: Model
) -> None:
    small = resampled(slices[1], side, Image.Resampling.LANCZOS)
    assert code(small, model) == "few_pixels"
    assert code(resampled(small, 10 * side, how), model) == "few_pixels"


@pytest.mark.parametrize("quality", [3, 5, 10])
def test_compression_until_blocks_show_is_refused_wherever_the_picture_was_cut(
    quality: int, slices: list[Float32], model: Model
) -> None:
    assert code(jpeg(slices[1], quality), model) == "compressed"
    assert code(jpeg(slices[1], quality)[3:, 5:], model) == "compressed"


def test_usual_compression_passes(slices: list[Float32], model: Model) -> None:
    assert code(jpeg(slices[1], 75), model) == ""


@pytest.mark.parametrize("ground", [0.0, 1.0])
def test_a_slice_on_a_screen_is_cut_out_and_told(ground: float, slices: list[Float32], model: Model) -> None:
    screen = np.full((900, 1400), ground, np.float32)
    screen[400:784, 300:684] = slices[1]
    result, alone = answer(screen, model), answer(slices[1], model)
    assert isinstance(result, Prediction)
    assert isinstance(alone, Prediction)
    assert "cropped" in {n.code for n in result.notices}
    assert result.probability == pytest.approx(alone.probability, abs=0.1)


def test_the_one_viewport_with_lung_is_cut_out_and_told(slices: list[Float32], model: Model) -> None:
    head = to_gray(ELSEWHERE["skull_base"](np.random.default_rng(0), size=384), "HU")
    result = answer(np.hstack([np.pad(s, 10) for s in (head, slices[1])]), model)
    assert isinstance(result, Prediction)
    (told,) = [n.detail for n in result.notices if n.code == "cropped"]
    assert "columns 402 to 808" in told  # the right one of two, from half-way between them


def test_two_slices_on_a_page_with_letters_are_several(slices: list[Float32], model: Model) -> None:
    page = np.full((600, 1000), 0.05, np.float32)
    page[60:444, 20:404], page[60:444, 424:808] = slices[1], slices[1]
    page[480:580:12, 20:700:3] = 0.9
    assert code(page, model) == "several_slices"


@pytest.mark.parametrize("ground", [0.1, 1.0])
def test_a_slice_in_a_viewer_or_on_a_page_is_cut_out_and_told(
    ground: float, slices: list[Float32], model: Model
) -> None:
    page = np.full((800, 1000), ground, np.float32)
    page[:60], page[:, :120] = 0.25, 0.15
    page[10:50:2, 200:900:5] = 0.6
    page[300:684, 400:784] = slices[1]
    result, alone = answer(page, model), answer(slices[1], model)
    assert isinstance(result, Prediction)
    assert isinstance(alone, Prediction)
    assert "cropped" in {n.code for n in result.notices}
    assert result.probability == pytest.approx(alone.probability, abs=0.1)


def test_lung_is_measured_on_the_part_that_was_cut_out(slices: list[Float32], model: Model) -> None:
    screen = np.zeros((2400, 2400), np.float32)
    screen[1000:1384, 900:1284] = slices[1]
    (found,), (alone,) = (look(g[None], model.field, model.frame) for g in (screen, slices[1]))
    assert found.box is not None
    assert found.lungs.mean() < 0.02 < found.fraction
    assert found.fraction == pytest.approx(alone.fraction, rel=0.6)


def test_viewports_are_cut_out_without_a_strip_of_their_neighbour() -> None:
    small = np.zeros((160, 160), np.float32)
    small[10:150, 4:78], small[10:150, 82:156] = 0.5, 0.5
    first, second = sorted(panels(small, 800, 800), key=lambda box: box[1].start)
    assert first[1].stop <= second[1].start


@pytest.mark.parametrize("keep", [np.s_[:, :150], np.s_[:, 100:300]], ids=["one-lung", "spine"])
def test_a_scan_that_was_cropped_as_a_whole_is_refused_though_some_slices_pass(
    keep: tuple[slice, slice], slices: list[Float32], model: Model
) -> None:
    cut = slices[1][keep]
    whole = resize(slices[3], *cut.shape)
    result = gg.predict(Scan(np.stack([cut, cut, cut, whole]), "gray", None, "made"), model)
    assert isinstance(result, Refusal)
    assert result.code == "cut_lungs"


@pytest.mark.parametrize("kind", sorted(ELSEWHERE))
def test_other_parts_of_the_body_are_refused_in_hu(kind: str, model: Model) -> None:
    hu = ELSEWHERE[kind](np.random.default_rng(5), size=384)
    result = gg.predict(Scan(hu[None], "HU", None, kind), model)
    assert isinstance(result, Refusal)
    assert result.code in ("not_axial_lung_ct", "no_lung")


@pytest.mark.parametrize(
    ("name", "expected"), [("J2K_pixelrep_mismatch.dcm", "not_axial_lung_ct"), ("CT_small.dcm", "cut_lungs")]
)
def test_the_ct_files_that_pydicom_ships_are_refused(name: str, expected: str, model: Model) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    result = gg.predict(gg.read(str(path)), model)
    assert isinstance(result, Refusal)
    assert result.code == expected


def test_every_flaw_has_a_code_and_says_what_to_give() -> None:
    assert set(FLAWED) == set(FLAWS)
    for refused, reason in FLAWED.values():
        assert refused in INPUT_CODES
        assert "; give" in reason


def test_the_quarters_of_a_cell_lie_where_the_lung_field_lies() -> None:
    lungs = np.zeros((1, 1, 80, 80), np.float32)
    lungs[0, 0, 8:12, 4:8] = 1  # the right upper quarter of the cell in row 1 and column 0
    inputs = frame_inputs(np.zeros((1, 96, 10, 10), np.float32), lungs)
    assert np.argwhere(inputs[0] > 0).tolist() == [[97, 1, 0]]


def test_a_damaged_file_of_layers_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "frame.npz").write_bytes(b"PK")
    for sha256, expected in (("0" * 64, "weights_hash"), (None, "weights_contract")):
        with pytest.raises(ModelError) as caught:
            read_frame_head(tmp_path / "frame.npz", sha256)
        assert caught.value.code == expected
    assert FRAMES[0] == "whole"


def test_a_long_picture_of_one_slice_is_kept_whole(slices: list[Float32], model: Model) -> None:
    flat = resize(slices[1], 200, 380)
    (found,) = look(flat[None], model.field, model.frame)
    assert (found.flaw, found.box) == ("", None)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rows", [True, False], ids=["rows", "columns"])
def test_a_slice_whose_end_was_lost_is_refused(level: float, rows: bool, slices: list[Float32], model: Model) -> None:
    for gray in slices:
        broken = gray.copy()
        broken[slice(230, None) if rows else np.s_[:, 280:]] = level
        assert code(broken, model) in ("cut_lungs", "not_axial_lung_ct")


def test_lungs_that_were_cut_out_of_their_slice_are_told_as_that(model: Model) -> None:
    made = [chest_slice(np.random.default_rng(seed), level=0.5, size=384) for seed in range(4)]
    whole = [to_gray(one.voxels[0], "HU") for one in made]
    alone = [np.where(one.lungs[0], gray, np.float32(0)) for one, gray in zip(made, whole, strict=True)]
    assert [code(gray, model) for gray in whole] == [""] * 4
    refused = [answer(gray, model) for gray in alone]
    assert all(isinstance(one, Refusal) for one in refused)
    assert any("a part was erased" in one.reason for one in refused if isinstance(one, Refusal))
