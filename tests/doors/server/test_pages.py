"""Laws of the page, in a real browser: what a user sees, and that nothing leaves the origin."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.doors.server.browser import PATIENCE, Open, answer, drawn, give
from tests.doors.server.http_client import form, part, request
from tests.doors.server.server_process import EXAMPLES, Serve, Served, stop

USE = "Research use only. Not a medical device. Not for diagnosis, triage or treatment."


def test_a_picture_gets_its_number_with_words(opened: Open) -> None:
    page = opened()
    give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    assert "97.9 %" in page.locator("#answer").text_content()
    assert "of the lung looks opaque" in page.locator("#answer").text_content()
    assert "points of 100 on average" in page.locator("#meaning").text_content()
    assert page.locator("#share-right-words").text_content().endswith(" %")
    assert "not a DICOM file" in page.locator("#warnings").text_content()
    assert "sensitivity" in page.locator("main").text_content()
    assert page.get_by_text(USE).first.is_visible()


def test_a_file_dropped_anywhere_is_taken_and_the_page_stays(opened: Open) -> None:
    page = opened()
    place = page.url
    box = page.locator("h1").bounding_box()
    mouse = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(EXAMPLES / "ground-glass.png")], "dragOperationsMask": 1}

    def drag(kind: str) -> None:
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 5, "y": box["y"] + 5, "data": data})

    drag("dragEnter")
    drag("dragOver")
    page.locator("#drop.over").wait_for()
    drag("drop")
    answer(page, "above its threshold")
    assert [shown.url for shown in page.context.pages] == [place]  # a browser opens a dropped file beside it
    assert page.locator("#source").text_content() == "ground-glass.png"
    assert page.locator("#drop.over").count() == 0


def test_a_chosen_folder_is_queued(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("ground-glass.png", "healthy.png"):
        shutil.copy(EXAMPLES / name, tmp_path / "folder")
    page = opened()
    page.locator("#folder").set_input_files(tmp_path / "folder")
    page.locator("#rows tbody tr").nth(1).wait_for()
    page.locator("#rows tbody td.waiting").first.wait_for(state="detached")
    assert set(page.locator("#rows tbody th").all_text_contents()) == {"ground-glass.png", "healthy.png"}


def test_the_limits_of_use_stay_in_sight(opened: Open) -> None:
    page = opened(viewport={"width": 390, "height": 600})
    page.get_by_role("button", name="Ground-glass").click()
    answer(page, "above its threshold")
    page.locator("footer").scroll_into_view_if_needed()
    box = page.locator(".use").bounding_box()
    assert box["y"] == 0


@pytest.mark.parametrize(("name", "words"), [("photo.png", "something other than a CT"), ("head.png", "a head CT")])
def test_a_refusal_says_what_it_seems_to_be_and_what_to_give(opened: Open, name: str, words: str) -> None:
    page = opened()
    give(page, EXAMPLES / name)
    answer(page, "No answer")
    said = page.locator("#caution").text_content()
    assert f"This looks like {words}." in said
    assert "What to do: give" in said
    assert page.locator("#viewer").is_hidden()


def test_a_broken_file_is_named_and_a_queue_sorts_and_becomes_csv(opened: Open, tmp_path: Path) -> None:
    broken = tmp_path / "=cmd.png"
    broken.write_bytes((EXAMPLES / "healthy.png").read_bytes()[:9000])
    page = opened()
    give(page, EXAMPLES / "healthy.png", broken, EXAMPLES / "ground-glass.png")
    page.locator("#rows tbody tr").nth(2).wait_for()
    page.locator("#rows tbody td.refused .why", has_text="What to do").wait_for()
    page.locator("#rows tbody td.covid").wait_for()
    page.locator("#rows thead").get_by_role("button", name="Probability").click()
    names = page.locator("#rows tbody th").all_text_contents()
    assert names == ["ground-glass.png", "healthy.png", "=cmd.png"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["status"] for row in rows] == ["ok", "ok", "refused"]
    assert rows[2]["input"] == "'=cmd.png"
    assert rows[2]["probability"] == ""


def test_the_result_can_be_kept_as_json_picture_and_zip(opened: Open) -> None:
    page = opened()
    give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    kept = {}
    for name in ("Result (JSON)", "Picture (PNG)", "Download all (zip)"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        kept[download.value.suggested_filename] = download.value.path().read_bytes()
    assert json.loads(kept["ground-glass.png-groundglass.json"])["input"] == "ground-glass.png"
    assert kept["ground-glass.png-groundglass.png"].startswith(b"\x89PNG")
    names = zipfile.ZipFile(io.BytesIO(kept["ground-glass.png-groundglass.zip"])).namelist()
    assert names == ["result.json", "picture.png"]
    assert "DICOM series only" in page.locator("#no-dicom").text_content()


def test_what_is_forgotten_is_gone(opened: Open, service: Served) -> None:
    page = opened()
    with page.expect_response(lambda r: r.url.endswith("/v1/series?view=true")) as accepted:
        give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    with page.expect_response(lambda r: r.request.method == "DELETE"):
        page.get_by_role("button", name="Forget all results").click()
    with service.client() as client:
        assert client.get(f"/v1/jobs/{accepted.value.json()['id']}").status_code == 404
    assert page.locator("#result").is_hidden()


def test_without_javascript_a_form_gives_the_same_answer(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    page.locator("#file").set_input_files([EXAMPLES / "ground-glass.png", EXAMPLES / "photo.png"])
    page.get_by_role("button", name="Predict").click()
    assert page.get_by_role("heading", name="2 results").is_visible()
    assert "97.9 %" in page.locator("main").text_content()
    assert "What to do: give" in page.locator("main").text_content()
    assert page.locator("figure img").evaluate("i => i.naturalWidth") > 100
    page.get_by_role("link", name="Give another scan").click()
    page.get_by_role("button", name="Healthy lungs").click()
    assert "below its threshold" in page.locator("main").text_content()


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1200)])
def test_axe_finds_nothing_serious_in_any_state(opened: Open, scheme: str, width: int, service: Served) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[test]'").Axe()

    def check(page: Any) -> None:
        found = axe.run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []

    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    check(page)
    page.get_by_role("button", name="See an example").click()
    answer(page, "above its threshold")
    drawn(page)
    check(page)
    page.get_by_role("button", name="Keys").click()
    check(page)
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="New scan").click()
    page.get_by_role("button", name="A photograph").click()
    page.locator("#rows tbody td.refused").wait_for()
    check(page)
    for address in ("/docs", "/help?lang=de"):
        page.goto(service.url + address)
        check(page)


def test_a_phone_shows_the_page_without_scrolling_sideways(opened: Open) -> None:
    page = opened(viewport={"width": 360, "height": 700}, has_touch=True)
    page.get_by_role("button", name="See an example").tap()
    answer(page, "above its threshold")
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_with_a_token_the_page_asks_for_it(browser: Any, serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 40)
    (tmp_path / "token").chmod(0o600)
    served = serve("--token-file", tmp_path / "token")
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    give(page, EXAMPLES / "ground-glass.png")
    page.locator("#trouble", has_text="the token").or_(page.locator("#trouble", has_text="Bearer")).wait_for()
    page.get_by_label("Token").fill("t" * 40)
    give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    drawn(page)
    page.close()


@pytest.fixture
def bare(browser: Any) -> Iterator[Any]:
    """A page whose console may hold errors: a browser writes one for each answer of 4xx or 5xx."""
    made = browser.new_page()
    made.set_default_timeout(PATIENCE)
    yield made
    made.close()


def test_what_was_not_taken_or_not_sent_gets_a_row_that_says_why(bare: Any, serve: Serve) -> None:
    served = serve(env={"GROUNDGLASS_LIMIT_STUDY_BYTES": "50000"})
    bare.goto(served.url)
    give(bare, EXAMPLES / "healthy.png", EXAMPLES / "head.png")
    bare.locator("#rows tbody td.refused").wait_for()
    assert bare.locator("#rows tbody td.error").all_text_contents() == [
        "failedExpected a file of at most 0 MiB, got more; send less."
    ]
    assert bare.locator("#rows tbody td.refused").all_text_contents()[0].startswith("refused")
    bare.locator("#rows").get_by_role("button", name="healthy.png").click()
    answer(bare, "not judged")
    assert "Expected a file of at most" in bare.locator("#caution").text_content()
    assert bare.locator("#keep").is_hidden()
    stop(served)
    give(bare, EXAMPLES / "head.png")
    bare.locator("#rows tbody td.error").nth(1).wait_for()
    assert "cannot be reached" in bare.locator("#caution").text_content()


@pytest.fixture
def crowded(bare: Any, serve: Serve, tmp_path: Path) -> Iterator[list[socket.socket]]:
    """A page of a service to which this address sends already all that it may; closing the uploads gives it room."""
    (tmp_path / "token").write_text("t" * 40)
    (tmp_path / "token").chmod(0o600)
    served = serve("--behind-proxy", "--token-file", tmp_path / "token")
    bare.goto(served.url)
    bare.get_by_label("Token").fill("t" * 40)
    token = b"Authorization: Bearer " + b"t" * 40 + b"\r\n"
    half = request(form(part(bytes(4 << 20))), more=token)[: 2 << 20]  # so much has 200 seconds for its rest
    uploads = [socket.create_connection(("127.0.0.1", served.port), timeout=60) for _ in range(8)]
    for upload in uploads:
        upload.sendall(half)
    yield uploads
    for upload in uploads:
        upload.close()


def test_a_page_that_sends_too_much_waits_and_sends_again(bare: Any, crowded: list[socket.socket]) -> None:
    with bare.expect_response(lambda r: r.status == 429):
        give(bare, EXAMPLES / "ground-glass.png")
    bare.locator("#status", has_text="trying again").wait_for()
    for upload in crowded:
        upload.close()
    answer(bare, "above its threshold")
    assert bare.locator("#list").is_hidden()


def test_what_was_stopped_waits_and_goes_on_when_asked(bare: Any, crowded: list[socket.socket]) -> None:
    with bare.expect_response(lambda r: r.status == 429):
        give(bare, EXAMPLES / "ground-glass.png", EXAMPLES / "healthy.png")
    bare.locator("#status", has_text="trying again").wait_for()
    bare.get_by_role("button", name="Stop").click()
    bare.locator("#work").wait_for(state="hidden")
    assert bare.locator("#rows tbody td.waiting").count() == 2
    assert bare.locator("#trouble").is_hidden()
    for upload in crowded:
        upload.close()
    bare.get_by_role("button", name="Continue").click()
    bare.locator("#rows tbody td.covid").wait_for()
    bare.locator("#rows tbody td.non-covid").wait_for()
    assert bare.get_by_role("button", name="Continue").is_hidden()


def test_pictures_of_one_scan_stand_in_the_order_of_their_names(opened: Open, tmp_path: Path) -> None:
    for name, picture in (("s10", "ground-glass"), ("s2", "healthy"), ("s1", "healthy")):
        shutil.copy(EXAMPLES / f"{picture}.png", tmp_path / f"{name}.png")
    page = opened()
    page.get_by_label("slices of one scan").check()
    give(page, *(tmp_path / f"{name}.png" for name in ("s10", "s2", "s1")))
    page.locator("#highest button").nth(2).wait_for()
    assert page.locator("#highest button").first.text_content().startswith("3: ")


def test_a_zipped_series_can_be_kept_as_dicom_and_names_its_patient_only_if_asked(
    opened: Open, tmp_path: Path, series_zip: bytes
) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install '.[dicom]'")
    (tmp_path / "series.zip").write_bytes(series_zip)
    page = opened()
    give(page, tmp_path / "series.zip")
    answer(page, "above its threshold")
    source = pydicom.dcmread(EXAMPLES / "volume" / "IM0005.dcm")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all (zip)").click()
    with zipfile.ZipFile(download.value.path()) as kept:
        made = [pydicom.dcmread(io.BytesIO(kept.read(n))) for n in kept.namelist() if n.endswith(".dcm")]
    assert {m.StudyInstanceUID for m in made} == {source.StudyInstanceUID}
    assert {m.Modality for m in made} == {"SR", "OT"}
    page.locator("#series-header summary").click()
    assert str(source.Manufacturer) in page.locator("#series-rows").text_content()
    assert str(source.PatientID) not in page.locator("body").text_content()
    page.get_by_role("button", name="Show whose it is").click()
    page.locator("#patient-rows", has_text=str(source.PatientID)).wait_for()


def test_the_report_is_one_page_with_the_users_own_file_name(opened: Open, tmp_path: Path, series_zip: bytes) -> None:
    (tmp_path / "My scan.zip").write_bytes(series_zip)
    page = opened()
    give(page, tmp_path / "My scan.zip")
    answer(page, "above its threshold")
    drawn(page)
    page.evaluate("window.print = () => { window.printed = true; }")
    page.get_by_role("button", name="Print a report").click()
    page.wait_for_function("window.printed")
    paper = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) == 1
    report = page.locator("#report").text_content()
    for words in ("My scan.zip", "above its threshold", "right lung", "SHA-256", "Slice "):
        assert words in report


def test_the_page_speaks_german(opened: Open, service: Served) -> None:
    page = opened(f"{service.url}/?lang=de")
    assert page.locator("html").get_attribute("lang") == "de"
    page.get_by_role("button", name="Ein Beispiel ansehen").click()
    answer(page, "über seinem Schwellenwert")
    drawn(page)
    assert "Schicht" in page.locator("#place").text_content()
    assert "," in page.locator("#scale-words").text_content()
    page.get_by_role("button", name="Neues CT").click()
    page.get_by_role("button", name="Ein Foto").click()
    page.locator("#rows tbody td.refused", has_text="abgelehnt").wait_for()


def test_a_forgotten_scan_is_sent_again(bare: Any, service: Served) -> None:
    page = bare
    page.goto(service.url)
    with page.expect_response(lambda r: r.url.endswith("/v1/series?view=true")) as accepted:
        give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    drawn(page)
    with service.client() as client:
        client.delete(f"/v1/jobs/{accepted.value.json()['id']}")
    with page.expect_response(lambda r: r.url.endswith("/v1/series?view=true")) as resent:
        page.locator("#shown").select_option("activation")
    assert resent.value.json()["id"] != accepted.value.json()["id"]


def test_the_page_weighs_less_than_150_kb_in_every_language(service: Served) -> None:
    with service.client() as client:
        start = client.get("/?lang=de").text
        names = set(re.findall(r'"(/static/[^"]+)"', start)) | {"/static/de.json"}
        todo = [name for name in names if name.endswith(".js")]
        while todo:
            more = {f"/static/{n}" for n in re.findall(r'from "\./([^"]+)"', client.get(todo.pop()).text)} - names
            names |= more
            todo += more
        answers = [client.get(name) for name in ("/?lang=de", *sorted(names))]
    assert {a.status_code for a in answers} == {200}
    assert sum(len(a.content) + len(str(a.headers)) for a in answers) <= 150_000
    scripts = [a.text for a in answers if "javascript" in a.headers["content-type"]]
    assert len(scripts) >= 7
    assert all("http" not in text.replace("http://www.w3.org/2000/svg", "") for text in scripts)
