"""The pictures that compute a model, under pointer, finger and keys: every number is torch's, whatever is changed."""

import re
from dataclasses import replace

import pytest
import torch

from tests.browser.reader import ask, drag, listen, number, spot, swipe, told
from tests.living.node import eight_bit
from tests.model.test_vit import PUBLISHED
from vit_walkthrough import VisionTransformer, ViTConfig, count_parameters, patchify, record
from vit_walkthrough.data import ClutteredDigits
from vit_walkthrough.living import live
from vit_walkthrough.look.intervene import intervene
from vit_walkthrough.weights import load_tiny

MODEL, IMAGE = load_tiny(8, 4), ClutteredDigits("test").sample(1, draw=3)[0][0]


def answer(model, image, **changes) -> torch.Tensor:
    with torch.no_grad(), intervene(model, **changes):
        return model(image[None])[0].softmax(-1)


@pytest.fixture
def rounded(model):
    """A random model on a grid of 3 x 5, with the weights that a page carries."""
    return eight_bit(model)


NAMES = ["input", "", "patch_embedding", "class_token", "position_embedding", "blocks.1", "norm"]


@pytest.fixture
def shown(rounded, images, open_page):
    with torch.no_grad(), record(rounded) as trace:
        rounded(images)
    page = open_page(live("steps", rounded, images[0]).html, reduced_motion="reduce")
    page.locator(".vit-steps-scene").wait_for()
    return page, trace


def test_steps_the_number_under_the_pointer_or_the_keys_is_torchs_in_every_step(shown):
    page, trace = shown
    scene, slider = page.locator(".vit-steps-scene"), page.get_by_role("slider")
    slider.press("ArrowRight")
    for step in range(2, 7):
        slider.press("ArrowRight")
        scene.scroll_into_view_if_needed()
        for across, down in [(0.4, 0.5), (0.9, 0.7)]:
            page.mouse.move(*spot(scene, down - 0.5, across - 0.5, 1, 1))
            seen = ask(page)
            token, place = seen["pointed"]["col"] - (step < 3), seen["pointed"]["row"]
            said = re.match(rf"{re.escape(NAMES[step])}\[{token}, {place}\] = (\S+) of shape", told(page))
            assert seen["time"] == step
            assert number(said[1]) == pytest.approx(trace[NAMES[step]][0, token, place].item(), abs=0.0051)
        scene.press("ArrowLeft")
        assert ask(page)["pointed"] == seen["pointed"] | {"col": seen["pointed"]["col"] - 1}


def test_steps_a_tap_names_a_pixel_and_the_answer_is_torchs(shown, images):
    page, trace = shown
    assert ask(page, "probabilities()") == pytest.approx(trace["output"][0].softmax(-1).tolist(), abs=1e-4)
    assert page.get_by_role("button", name="play").count() == 0  # motion is reduced
    page.get_by_role("button", name="picture").click()
    scene = page.locator(".vit-steps-scene")
    scene.scroll_into_view_if_needed()
    across, _ = spot(scene, 0, 0, 1, 1)
    swipe(page, (across, scene.bounding_box()["y"] + 60))
    pointed = ask(page)["pointed"]
    assert f"red {images[0, 0, pointed['row'], pointed['col']]:.2f}" in told(page)


def test_steps_straight_strokes_are_named_and_an_empty_pad_claims_nothing(open_page):
    def assert_reads(digit: int) -> None:
        said, numbers = ask(page, "probabilities()"), ask(page, "image().numbers.join()")
        expected = answer(MODEL, torch.tensor([float(one) for one in numbers.split(",")]).reshape(3, 48, 48))
        assert said == pytest.approx(expected.tolist(), abs=1e-4)
        assert expected.argmax() == digit
        assert f"says {digit}, with {expected.max():.1%}" in told(page)

    page = open_page(live("steps", MODEL, torch.rand(3, 48, 48)).html)
    page.get_by_role("button", name="draw your own").click()
    pad = page.locator(".vit-steps-pad canvas").first
    for digit, strokes in {1: [(0.5, 0.15), (0.5, 0.85)], 7: [(0.25, 0.2), (0.7, 0.2), (0.45, 0.85)]}.items():
        page.get_by_role("button", name="clear").click()
        assert "is empty" in told(page)
        assert not page.locator(".vit-steps-answer, .vit-steps-scene").locator("visible=true").count()
        drag(page, *(spot(pad, down - 0.5, across - 0.5, 1, 1) for across, down in strokes))
        assert_reads(digit)
    for digit in (1, 4, 7):
        page.get_by_role("button", name=str(digit), exact=True).press("Enter")
        assert_reads(digit)
    page.get_by_role("button", name="erase").click()
    drag(page, *(spot(pad, down - 0.5, across - 0.5, 1, 1) for across, down in [(0.25, 0.14), (0.75, 0.14)]))
    drag(page, *(spot(pad, down - 0.5, across - 0.5, 1, 1) for across, down in [(0.75, 0.14), (0.45, 0.88)]))
    drag(page, *(spot(pad, down - 0.5, across - 0.5, 1, 1) for across, down in [(0.35, 0.5), (0.7, 0.5)]))
    assert "is empty" in told(page)  # where all was erased, too


def test_embedding_sums_and_products_are_torch_s_by_mouse_touch_and_keys(open_page):
    page = open_page(live("embedding", MODEL, IMAGE).html, has_touch=True)
    with torch.no_grad():
        tokens, rows = MODEL.patch_embedding(IMAGE[None])[0], patchify(IMAGE[None], 8)[0]
    weight, bias = MODEL.patch_embedding.projection.weight, MODEL.patch_embedding.projection.bias
    picture, token, *planes = page.locator("canvas[tabindex]").all()

    def check(patch, chosen):
        page.mouse.move(0, 0)
        said = told(page)
        assert said.startswith(f"Number {chosen} of the token of patch {patch}: ")
        parts = re.search(r"sum of 192 products (\S+) \+ bias (\S+) = (\S+)", said).groups()
        wanted = (weight[chosen] @ rows[patch]).item(), bias[chosen].item(), tokens[patch, chosen].item()
        assert [number(part) for part in parts] == pytest.approx(wanted, abs=0.006)
        sums = page.locator(".vit-embedding-line").last.inner_text().replace("− ", "−").replace("+", " ").split()
        assert sum(map(number, sums)) == pytest.approx(wanted[0], abs=0.016)

    page.mouse.move(*spot(picture, 3, 4, 6, 6))
    page.mouse.move(*spot(token, 2, 5, 4, 16))
    check(22, 37)
    page.touchscreen.tap(*spot(picture, 1, 2, 6, 6))
    page.touchscreen.tap(*spot(token, 0, 0, 4, 16))
    check(8, 0)
    token.press("ArrowDown")
    picture.press("ArrowLeft")
    check(7, 16)
    page.mouse.move(*spot(planes[2], 3, 9 + 5, 8, 26))  # green, row 3, column 5
    said, place = told(page), 64 + 3 * 8 + 5
    assert "green, row 3, column 5" in said
    pixel, filtered = rows[7, place].item(), weight[16, place].item()
    found = re.search(r"has (\S+), the filter (\S+), and their product is (\S+)\.", said).groups()
    assert [number(one) for one in found] == pytest.approx((pixel, filtered, pixel * filtered), abs=6e-4)


def at_home(page, patch: int) -> tuple[float, float]:
    return spot(page.locator("canvas[tabindex]"), *divmod(patch, 6), 6, 6)


def assert_moved(page, places: dict | None, positions: bool = True):
    """Patches by the place in which they are, all others at home; and the answer to exactly that."""
    state = ask(page)
    patches, shown, was = state["order"], state["is"], state["was"]
    assert places is None or patches == [places.get(place, place) for place in range(36)]
    wanted = answer(MODEL, IMAGE, order=patches, positions=positions)
    assert shown == pytest.approx(wanted.tolist(), abs=2e-4)  # of an image in 16 bits
    bars = page.locator(".vit-bars").first.locator(".vit-number").all_inner_texts()
    assert [float(bar[:-1]) for bar in bars] == pytest.approx((100 * wanted).tolist(), abs=0.08)
    return patches, max(abs(one - other) for one, other in zip(shown, was, strict=True))


def test_order_patches_are_swapped_by_mouse_finger_and_keys(open_page):
    page = open_page(live("order", MODEL, IMAGE).html + '<p style="height:3000px">', has_touch=True)
    page.mouse.move(*at_home(page, 14))
    page.mouse.down()
    page.mouse.move(*at_home(page, 3))
    assert_moved(page, {3: 14, 14: 3})  # while it is dragged
    page.mouse.up()
    page.touchscreen.tap(*at_home(page, 0))
    page.touchscreen.tap(*at_home(page, 8))
    assert_moved(page, {3: 14, 14: 3, 0: 8, 8: 0})
    swipe(page, *(at_home(page, patch) for patch in (20, 21, 28)))
    assert_moved(page, {3: 14, 14: 3, 0: 8, 8: 0, 20: 28, 28: 20})
    assert page.evaluate("scrollY") == 0
    swipe(page, *(at_home(page, patch) for patch in (33, 27, 21, 15)))  # up at once: the page scrolls, no patch moves
    page.evaluate("scrollTo(0, 0)")
    heard = listen(page)
    page.get_by_role("button", name="put back").press("Enter")  # a click might meet a page that still scrolls
    for key in ("Home", "Enter", "ArrowRight", "ArrowDown", "Enter", "ArrowRight", "Enter", "ArrowUp", "Escape"):
        page.locator("canvas[tabindex]").press(key)
    assert_moved(page, {0: 7, 7: 0})
    assert heard() == []


def test_order_without_positions_no_shuffle_changes_the_answer(open_page):
    page = open_page(live("order", MODEL, IMAGE).html)
    page.get_by_role("button", name="shuffle").click()
    page.get_by_role("button", name="off").click()
    patches, change = assert_moved(page, None, positions=False)
    assert sorted(patches) == list(range(36)) != patches
    said = told(page)
    assert "the same to rounding" in said
    assert change <= float(said.split("more than ")[1].rstrip(".")) < 1e-4


def assert_reads(page, model, image, **options) -> None:
    """What is said at every station, and how long is what is read there."""
    shown = ask(page, "readings()")
    names = ["blocks.0.norm_1.input", *(f"blocks.{block}" for block in range(model.config.depth))]
    with torch.no_grad(), intervene(model, **options):
        with record(model, *names) as trace:
            model(image[None])
        stations = [trace[name] for name in names]
        said = [model.head(model.pool(model.norm(tokens)))[0].softmax(-1) for tokens in stations]
        lengths = [model.pool(tokens)[0].norm().item() for tokens in stations]
    for station, (one, expected, length) in enumerate(zip(shown, said, lengths, strict=True)):
        assert one["said"] == pytest.approx(expected.tolist(), abs=2e-4), station
        assert one["length"] == pytest.approx(length, rel=1e-3)
        words = page.locator(".vit-stream-words").nth(station).inner_text()
        assert f"{expected.max():.1%}" in words
        assert f"length {length:.2f}" in words
    assert f"{said[-1].max():.1%}" in told(page)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_stream_every_station_says_what_torch_says(config, images, randomize, open_page, pooling):
    model = eight_bit(randomize(VisionTransformer(replace(config, pooling=pooling))))
    page, image = open_page(live("stream", model, images[0]).html, has_touch=True), images[0]
    page.locator(".vit-stream").wait_for()
    assert_reads(page, model, image)
    attention, mlp = (page.locator(".vit-stream-half", has_text=name) for name in ("attention", "MLP"))
    attention.nth(1).click()
    changes = dict(skipped=["blocks.1.attention"])
    assert_reads(page, model, image, **changes)
    mlp.nth(0).tap()
    mlp.nth(0).press("Enter")
    changes |= dict(alone=["blocks.0.mlp"])
    assert_reads(page, model, image, **changes)
    page.get_by_role("button", name="norm before attention of block 0").click()
    page.get_by_role("button", name="the last norm").press("Space")
    assert_reads(page, model, image, **changes, unnormed=["blocks.0.norm_1", "norm"])
    page.get_by_role("button", name="reset").click()
    assert_reads(page, model, image)


def on_cover(page, patch: int) -> tuple[float, float]:
    return spot(page.locator(".vit-covering canvas.vit-points").first, *divmod(patch, 5), 3, 5)


def assert_answers(page, model, image, covered, silenced=()) -> None:
    expected, state = answer(model, image, covered=covered, silenced=silenced), ask(page)
    assert sorted(state["covered"]) == sorted(covered)
    assert state["now"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert f"{expected.max():.1%}" in told(page)


def test_cover_clicks_drags_keys_and_heads_change_the_answer_as_in_torch(rounded, images, open_page):
    page = open_page(live("cover", rounded, images[0]).html)
    assert_answers(page, rounded, images[0], [])
    page.mouse.click(*on_cover(page, 6))
    assert_answers(page, rounded, images[0], [6])
    drag(page, on_cover(page, 0), on_cover(page, 4))
    assert_answers(page, rounded, images[0], [6, 0, 1, 2, 3, 4])
    page.locator(".vit-covering canvas.vit-points").first.focus()
    for key in ("ArrowDown", "Enter", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert_answers(page, rounded, images[0], [6, 0, 1, 2, 3, 9])
    page.get_by_role("button", name="silence head 2 of block 1").click()
    assert_answers(page, rounded, images[0], [6, 0, 1, 2, 3, 9], [(1, 2)])
    page.get_by_role("button", name="reset").click()
    assert_answers(page, rounded, images[0], [])


def test_cover_strongest_and_weakest_are_the_maps_and_a_finger_covers(rounded, images, open_page):
    with torch.no_grad(), record(rounded) as trace:
        rounded(images[:1])
    ranked = trace.attention[-1, 0, :, 0, 1:].mean(0)
    mask = torch.zeros(12, 20)
    mask[:4, 4:12] = 1
    page = open_page(live("cover", rounded, images[0], mask=mask, label=3).html, has_touch=True)
    for name, largest in (("strongest", True), ("weakest", False)):
        page.get_by_role("button", name=name).click()
        best = ranked.topk(5, largest=largest)
        assert_answers(page, rounded, images[0], best.indices.tolist())
        inside = sum(patch in (1, 2) for patch in best.indices.tolist())
        said = told(page)
        assert all(part in said for part in (f"{best.values.sum():.1%}", f"({inside} of them", "is a 3"))
    page.get_by_role("button", name="reset").click()
    page.touchscreen.tap(*on_cover(page, 7))
    assert_answers(page, rounded, images[0], [7])


SMALL = ViTConfig((32, 48), 8, channels=1, dim=64, depth=3, heads=4, hidden=96, classes=10)


def test_parameters_published_sizes_have_the_published_counts(open_page):
    page = open_page(live("parameters", ViTConfig()).html)
    for name, (_, count) in PUBLISHED.items():
        for part in name.split("/"):
            page.get_by_role("button", name=part, exact=True).click()
        assert page.locator(".vit-parameters-sum").inner_text() == f"{count:,} numbers"
        assert ask(page, "state().total") == count


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
def test_parameters_every_part_is_a_tensor_of_the_model_and_has_its_area(open_page, positions):
    config = replace(SMALL, positions=positions)
    page = open_page(live("parameters", config).html)
    found = ask(page, "state().areas.map((one) => ({...one, ...one.part, row: null, part: null}))")
    with torch.device("meta"):
        model = VisionTransformer(config)
    shapes = {name: list(tensor.shape) for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert {one["name"].replace("*", str(one["block"])): one["shape"] for one in found} == shapes
    whole, total = sum(one["width"] * one["height"] for one in found), count_parameters(model)
    for one in found:
        assert one["width"] * one["height"] / whole == pytest.approx(one["count"] / total, rel=1e-6)


def test_parameters_mouse_touch_and_arrow_keys_choose_a_part(open_page):
    page = open_page(live("parameters", SMALL).html, has_touch=True)
    canvas = page.locator(".vit-points")
    canvas.focus()
    for _ in range(7):  # from nothing to qkv, the seventh part
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("blocks.1.attention.qkv.weight has the shape (192, 64): 12,288 numbers")
    area = ask(page, "state().areas.find(({part, block}) => part.label === 'expand' && block === 2)")
    box = canvas.bounding_box()
    middle = box["x"] + area["left"] + area["width"] / 2, box["y"] + area["top"] + area["height"] / 2
    page.mouse.move(*middle)
    assert told(page).startswith("blocks.2.mlp.expand.weight has the shape (96, 64)")
    assert "all 3 blocks has 18,432" in told(page)
    page.get_by_role("button", name="class token").tap()  # far too small to be hit on the map
    assert told(page).startswith("class_token.token has the shape (1, 1, 64): 64 numbers")
    page.touchscreen.tap(*middle)
    assert told(page).startswith("blocks.2.mlp.expand.weight")
    assert page.locator(".vit-parameters-list [aria-pressed=true]").inner_text().startswith("expand")
