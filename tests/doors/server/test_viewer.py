"""The viewer on the page: walking, windowing, comparing, pointing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doors.server.browser import Open, answer, drawn, give
from tests.doors.server.server_process import EXAMPLES


def test_a_dicom_file_has_a_window_to_drag(opened: Open) -> None:
    page = opened()
    give(page, EXAMPLES / "volume" / "IM0005.dcm")
    answer(page, "threshold")
    before = drawn(page)
    page.locator("#window").select_option("40 400")
    soft = drawn(page, before)
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 150, steps=4)
    page.mouse.up()
    assert drawn(page, soft)
    assert page.locator("#window").input_value() == ""


def test_a_series_is_walked_by_keys_wheel_chart_and_list_highest_first(opened: Open) -> None:
    page = opened()
    page.get_by_role("button", name="See an example").click()
    answer(page, "above its threshold")
    drawn(page)
    place = page.locator("#place")
    page.locator("#highest button").nth(7).wait_for()
    chances = [
        float(b.split(": ")[1].strip("> ").split(" ")[0]) for b in page.locator("#highest button").all_text_contents()
    ]
    assert chances == sorted(chances, reverse=True)
    first = int(place.text_content().split()[1])
    page.keyboard.press("ArrowUp")  # without a click on the picture
    page.locator("#place", has_text=f"Slice {first + 1} of 12").wait_for()
    page.keyboard.press("ArrowDown")
    page.locator("#place", has_text=f"Slice {first} of 12").wait_for()
    page.locator("#canvas").hover()
    page.mouse.wheel(0, -100)  # up, as with the arrow
    page.locator("#place", has_text=f"Slice {first + 1} of 12").wait_for()
    page.mouse.wheel(0, 100)
    page.locator("#place", has_text=f"Slice {first} of 12").wait_for()
    box = page.locator("#chart").bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    page.locator("#place", has_text="Slice 1 of 12").wait_for()
    page.keyboard.press("End")


def test_all_slices_are_held_while_there_is_room_and_the_nearest_ones_after(opened: Open) -> None:
    held = opened().evaluate("""async () => {
      const { Slices } = await import("/static/slices.js");
      const get = async () => new Response(new ArrayBuffer(16 * 16 * 2.25));
      const counts = [];
      for (const most of [400, 8]) {
        const slices = new Slices(get, "", { width: 16, height: 16, slices: 300 }, new Set());
        slices.most = most;
        for (let n = 0; n < 300; n++) await slices.part(n).then((part) => part.pixels.length);
        counts.push(slices.held.size);
      }
      return counts;
    }""")
    assert held == [300, 8]


def test_a_slice_that_comes_late_is_shown_on_the_way_to_the_wanted_one(opened: Open) -> None:
    page = opened()
    late: dict[str, Any] = {}
    for index in (0, 1):  # two slices that nobody is near to at first
        page.route(f"**/{index}/pixels*", lambda route, request: late.setdefault(request.url.split("/")[-2], route))
    page.get_by_role("button", name="See an example").click()
    page.locator("#canvas[data-slice]").wait_for()
    page.locator("#slice").fill("2")
    page.locator("#slice").fill("1")
    page.locator("#place", has_text="Slice 1 of 12").wait_for()
    while len(late) < 2:
        page.wait_for_timeout(100)
    for index, shown in (("1", "2"), ("0", "1")):
        late[index].continue_()
        page.locator(f"#canvas[data-slice='{shown}']").wait_for()


def test_heat_and_outline_go_and_fade(opened: Open) -> None:
    page = opened()
    give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    full = drawn(page)
    page.locator("#strength").fill("10")
    faint = drawn(page, full)
    page.keyboard.press("h")
    without = drawn(page, faint)
    page.keyboard.press("l")
    bare = drawn(page, without)
    page.keyboard.press("+")
    closer = drawn(page, bare)
    page.keyboard.press("0")
    assert drawn(page, closer) == bare


@pytest.mark.parametrize("width", [1366, 390])
def test_picture_and_answer_are_in_sight_without_scrolling(opened: Open, width: int) -> None:
    height = {1366: 900, 390: 780}[width]
    page = opened(viewport={"width": width, "height": height})
    page.get_by_role("button", name="See an example").click()
    answer(page, "above its threshold")
    drawn(page)
    shown, panel, use = (page.locator(name).bounding_box() for name in ("#canvas", "#answer", ".use"))
    assert use["y"] <= 0
    assert use["height"] <= 40
    assert shown["y"] >= use["height"] - 1
    assert shown["y"] + shown["height"] <= height
    assert panel["y"] + panel["height"] <= height
    assert min(shown["width"], shown["height"]) >= 0.9 * min(420, width)


def test_a_slice_is_compared_side_by_side_and_by_a_wipe(opened: Open) -> None:
    page = opened()
    give(page, EXAMPLES / "ground-glass.png")
    answer(page, "above its threshold")
    over = drawn(page)
    page.keyboard.press("c")
    beside = drawn(page, over)
    page.keyboard.press("c")
    wiped = drawn(page, beside)
    page.locator("#wipe").fill("10")
    assert drawn(page, wiped)
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()


def test_the_pointer_tells_hu_and_the_share_under_it(opened: Open) -> None:
    page = opened()
    give(page, EXAMPLES / "volume" / "IM0005.dcm")
    answer(page, "threshold")
    drawn(page)
    box = page.locator("#canvas").bounding_box()
    said = []
    for step in range(80):
        page.mouse.move(box["x"] + box["width"] * (0.1 + step / 100), box["y"] + box["height"] * 0.62)
        said.append(page.locator("#pointer").text_content() or "")
    assert any(" HU" in words for words in said)
    assert any("of the lung on this slice" in words and "cm²" in words for words in said)
