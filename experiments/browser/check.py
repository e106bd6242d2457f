"""Draws in headless Chromium with a page that build.py made, and compares its pixels with JAX's.

    python experiments/browser/check.py --page=site_browser --checkpoint=mnist --pictures=pictures

Every way of drawing from JAX's noise, then what a person does: open it, walk, press a key. One grey level is allowed.
Ends with 0 where all agree. --pictures is a folder for screenshots, wide and narrow, light and dark.
"""

import argparse
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jax
import numpy as np
from build import SEED, as_stored, first_images, opening

import fmd
from fmd.config import Settings
from fmd.math.editing import slerp
from fmd.methods.jumps import JUMP
from fmd.randomness import example_normal
from fmd.sampling.sampler import Sampler

SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
DRAW = """async ([noise, labels, how]) => {
  const { draw } = await import(new URL("page.js", document.baseURI));
  const { pixels } = await import(new URL("sampling.js", document.baseURI));
  return Array.from(pixels((await draw(Float32Array.from(noise), Int32Array.from(labels), how)).at(-1)));
}"""
SHOWN = """() => {
  const canvas = document.getElementById("image");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return Array.from(data.filter((_, i) => i % 4 < CHANNELS));
}"""


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that writes no lines."""

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, required=True, help="the folder that build.py made")
    parser.add_argument("--checkpoint", required=True, help="what it was made from")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    flags = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(flags.page)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: sys.exit(f"check.py: {error}"))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        worst = compare(page, flags.checkpoint)
        if flags.pictures is not None:
            take_pictures(page, flags.pictures)
        browser.close()
    server.shutdown()
    if worst > 1:
        sys.exit(f"check.py: pixels differ by {worst} grey levels")


def compare(page: Any, checkpoint: str) -> int:
    """The largest difference between the page's pixels and JAX's, in grey levels; prints each."""
    sampler = fmd.load(checkpoint)
    params = jax.tree.map(as_stored, jax.device_get(sampler.params))
    labels = np.arange(sampler.num_classes, dtype=np.int32)
    shape = sampler.image_shape
    shown = SHOWN.replace("CHANNELS", str(shape[-1]))
    differences = []

    def drawn(labels: np.ndarray, noise: np.ndarray, settings: Settings) -> np.ndarray:
        return sampler.sample(labels, settings=settings, noise=noise, params=params).images

    def judge(what: str, found: list[int], wanted: np.ndarray) -> None:
        difference = np.abs(np.array(found) - wanted.ravel().astype(int))
        differences.append(int(difference.max()))
        print(f"{what:32} {difference.max()} at most, {np.mean(difference > 0):.2%} of the pixels differ")

    idle(page)
    marks = [page.evaluate(f"performance.getEntriesByName('{name}')[0].startTime") for name in ("first", "drawn")]
    print(f"first.png after {marks[0]:.0f} ms, drawn after {marks[1]:.0f} ms; one more: {page.text_content('#cost')}")

    noise = np.asarray(example_normal(jax.random.key(1), labels, shape))
    for what, way, settings in ways(sampler):
        found = page.evaluate(DRAW, [noise.ravel().tolist(), labels.tolist(), way])
        judge(what, found, drawn(labels, noise, settings))

    label, opened = int(page.evaluate("+document.querySelector('[name=class]:checked').value")), opening(sampler)
    judge(f"as opened, seed {SEED}", page.evaluate(shown), first_images(sampler)[label])
    ends = [example_normal(jax.random.key(seed), np.arange(1), shape) for seed in (SEED, SEED + 1)]
    between = np.asarray(slerp(*ends, 0.4))
    page.evaluate("share.value = .4; share.dispatchEvent(new Event('input', {bubbles: true}))")
    idle(page)
    judge("on the walk to the next seed", page.evaluate(shown), drawn(np.int32([label]), between, opened))
    page.focus("[name=class]:checked")
    page.keyboard.press("ArrowRight")
    idle(page)
    judge("after the right arrow key", page.evaluate(shown), drawn(np.int32([label + 1]), between, opened))
    return max(differences)


def ways(sampler: Sampler) -> list[tuple[str, dict[str, Any], Settings]]:
    """Name, settings of page.js, and settings of fmd, of each way of drawing."""
    found = []
    if sampler.method.second_time:
        found += [(f"jumps: {n}", {"way": n}, Settings().replace(solver=JUMP, steps=n)) for n in (1, 2, 4)]
    for solver, steps, weight in (("midpoint", 5, 1.3), ("midpoint", 3, 1.0), ("heun", 4, 2.0), ("heun", 3, 0.0)):
        if weight != 1.0 and not sampler.info.can_be_guided:
            continue
        how = {"solver": solver, "steps": steps, "weight": weight}
        found.append((f"{solver}, {steps} steps, weight {weight}", how | {"way": "flow"}, Settings().replace(**how)))
    return found


def idle(page: Any) -> None:
    """Waits until the page has drawn all that is wanted."""
    page.wait_for_timeout(50)
    page.wait_for_selector("#image[aria-busy=false]", timeout=300_000)


def take_pictures(page: Any, folder: Path) -> None:
    """Screenshots of the whole page as it opens and while it solves the flow, in both schemes and widths."""
    folder.mkdir(parents=True, exist_ok=True)
    page.reload()
    for state in ("jump", "flow"):
        if state == "flow":
            page.check("[name=way][value=flow]", force=True)
        idle(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for size, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                page.screenshot(path=folder / f"{state}_{size}_{scheme}.png", full_page=True)


if __name__ == "__main__":
    main()
