"""What a reader of a living picture does with a page, and what the page then says."""

FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def ask(page, call: str = "state()"):
    """What the first picture of a page answers after it has drawn."""
    page.evaluate(FRAMES)
    return page.evaluate(f"document.querySelector('.vit-living').living.{call}")


def told(page) -> str:
    page.evaluate(FRAMES)
    return page.locator(".vit-text").first.inner_text()


def spot(shown, row: float, col: float, rows: int, cols: int) -> tuple[float, float]:
    """The middle of a cell of what is shown, in the page."""
    box = shown.bounding_box()
    return box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows


def swipe(page, *spots) -> None:
    """Press a finger at the first spot, move it along the others, and lift it."""
    touch = page.context.new_cdp_session(page)
    for number, (across, down) in enumerate(spots):
        kind = "touchMove" if number else "touchStart"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": across, "y": down}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def drag(page, *spots) -> None:
    page.mouse.move(*spots[0])
    page.mouse.down()
    for place in spots[1:]:
        page.mouse.move(*place, steps=12)
    page.mouse.up()


def listen(page):
    """Hear which keys reach the page; the function returned says them."""
    page.evaluate("window.heard = []; document.addEventListener('keydown', ({key}) => heard.push(key))")
    return lambda: page.evaluate("heard")


def number(text: str) -> float:
    return float(text.replace("−", "-"))
