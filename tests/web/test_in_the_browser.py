"""The page of a run in headless Chromium gives the masks that PyTorch gives, on real images, and sends nothing anywhere.

Needs Chromium (Debian: apt-get install chromium) and onnxruntime-web, which is fetched from the npm registry once.
"""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from browser import CHROMIUM, browsing, chromium
from dicom_slice import dicom
from programs import NCA, answered, same, shaken
from somite.cli import main
from somite.data.images import read_image
from somite.data.sources import NUCLEI
from somite.errors import InputError
from somite.export.noise import noise
from somite.export.program import looked
from somite.web.runtime import runtime

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine: apt-get install chromium")]
IMAGES = sorted((NUCLEI / "images").glob("*.png"))[:2] + sorted((NUCLEI / "images").glob("*.jpg"))[:2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, and the folder of its page."""
    try:
        files = runtime()
    except InputError as error:
        pytest.skip(str(error))
    place = tmp_path_factory.mktemp("page")
    run = shaken("medsegdiffnca/demo", place / "run", *NCA, "--task.members=3")
    assert main(["web", str(run), "--out", str(place / "site"), "--runtime", str(files)]) == 0
    return run, place / "site"


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def page(made, browser):
    """One page for all tests; at its end nothing may have been asked of anyone else, and no policy broken."""
    with browsing(browser, made[1]) as one:
        yield one.opened()
        assert not one.strangers()
        assert not [text for text in one.complaints if "No available adapters" not in text]


def wanted(run, path, monkeypatch, seed=0, members=3):
    size = looked(48, read_image(path).shape[1:])
    return answered(run, path, noise(seed, members, 1, size), monkeypatch)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_masks_are_pytorchs(made, page, path, monkeypatch):
    found = page.give(path)
    result = wanted(made[0], path, monkeypatch)
    assert page.page.locator("#hint").is_hidden() == (path.suffix == ".png")
    if path.suffix == ".png":
        same(found, result)
    else:  # browsers decode JPEG by their own arithmetic: half a grey level; the page says so
        assert "decoded by the browser" in page.page.locator("#hint").inner_text()
        assert (found["mask"] != result.mask).mean() < 1e-3
        assert np.abs(found["probability"] - result.probability).mean() < 1e-3


def test_volumes_and_the_slider(made, page, tmp_path, monkeypatch):
    """Slices are answered one by one, each normalised by itself."""
    planes = np.stack([read_image(path)[0, :90, :70] for path in IMAGES[:2] * 2], 2)
    nib.save(nib.Nifti1Image(planes.astype(np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    found = page.give(tmp_path / "scan.nii.gz")
    assert page.page.locator("#slice-told").inner_text() == "3 of 4"
    assert "normalised by itself" in page.page.locator("#hint").inner_text()
    same(found, answered(made[0], planes[None, :, :, 2], noise(0, 3, 1, looked(48, (90, 70))), monkeypatch))
    page.page.locator("#slice").focus()
    page.page.keyboard.press("ArrowRight")
    page.page.get_by_text("Done").wait_for()
    page.page.wait_for_function("() => document.getElementById('slice-told').textContent === '4 of 4'")
    found = page.settled()
    same(found, answered(made[0], planes[None, :, :, 3], noise(0, 3, 1, looked(48, (90, 70))), monkeypatch))
    assert page.page.locator("#slice").get_attribute("aria-valuetext") == "4 of 4"


def test_dicom(made, page, tmp_path, monkeypatch):
    rows = (read_image(IMAGES[0])[0, :70, :90] * 2000).astype("<u2")
    dicom(tmp_path / "slice.dcm", rows, ExplicitVRLittleEndian)
    found = page.give(tmp_path / "slice.dcm")
    numbers = rows.T.astype(np.float32) * np.float32(1.5) - 1024
    same(found, answered(made[0], numbers[None], noise(0, 3, 1, looked(48, (90, 70))), monkeypatch))


def test_what_is_no_image_is_told(page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    assert page.give(tmp_path / "notes.png") is None
    assert page.page.locator("#error").inner_text() == (
        "notes.png: this is no image that this page reads: give PNG, JPG, NIfTI (.nii, .nii.gz) or DICOM"
    )
    assert not page.page.locator("#results").is_visible()
    Image.new("RGBA", (40, 40), (1, 2, 3, 9)).save(tmp_path / "clear.png")
    assert page.give(tmp_path / "clear.png") is None
    assert "transparent pixels" in page.page.locator("#error").inner_text()


def test_by_keyboard(made, page, monkeypatch):
    """Everything is reached by Tab, in the order of the page, and does what a click does."""
    page.give(IMAGES[0])
    page.page.reload()
    page.page.get_by_text("Ready.").wait_for()
    page.page.keyboard.press("Tab")
    assert page.page.evaluate("document.activeElement.id") == "file"
    with page.page.expect_file_chooser() as chosen:
        page.page.keyboard.press("Space")
    chosen.value.set_files(str(IMAGES[1]))
    page.settled()
    reached = []
    page.page.locator("#file").focus()
    for _ in range(12):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate("document.activeElement.id"))
    there = [name for name in reached if name and name != "engine"]
    assert there[:7] == ["members", "seed", "again", "filled", "save-mask", "save-probability", "save-spread"]
    page.page.locator("#seed").focus()
    page.page.keyboard.press("Control+A")
    page.page.keyboard.type("7")
    page.page.evaluate("document.getElementById('status').textContent = ''")  # what it says on the way may be gone before anybody looks
    page.page.keyboard.press("Enter")
    same(page.settled(), wanted(made[0], IMAGES[1], monkeypatch, seed=7))
    page.page.locator("#save-mask").focus()
    with page.page.expect_download() as saved:
        page.page.keyboard.press("Enter")
    assert saved.value.suggested_filename == f"{IMAGES[1].stem}_mask.png"
    mask = np.asarray(Image.open(saved.value.path()).convert("L"))
    assert ((mask > 0) == page.answer()["mask"]).all() and set(np.unique(mask)) == {0, 255}


def test_a_file_can_be_dropped(made, page, monkeypatch):
    """As a person drags it there, anywhere on the page."""
    content = list(IMAGES[0].read_bytes())
    page.page.evaluate("document.getElementById('status').textContent = ''")
    page.page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        content,
    )
    found = page.settled()
    seed = int(page.page.locator("#seed").input_value())
    same(found, wanted(made[0], IMAGES[0], monkeypatch, seed=seed))


def test_a_screen_reader_is_told_everything(page):
    """Each control and picture has a name, and what happens is announced."""
    page.give(IMAGES[0])
    unnamed = page.page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, canvas")]
          .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim())).map((one) => one.id)"""
    )
    assert unnamed == []
    assert page.page.get_by_role("img", name="Image with its mask: the mask covers").is_visible()
    assert page.page.get_by_role("img", name="Probability of the foreground").is_visible()
    assert page.page.get_by_role("status").inner_text().startswith("Done")
    assert page.page.locator("html").get_attribute("lang") == "en"
    levels = page.page.evaluate("() => [...document.querySelectorAll('h1, h2')].map((one) => one.tagName)")
    assert levels == ["H1", "H2", "H2", "H2"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    """Text against its ground, WCAG 2.2's 4.5 to 1, in both schemes."""
    page.page.emulate_media(color_scheme=scheme)
    pairs = page.page.evaluate(
        """() => ["body", ".soft", ".notice", ".button", "figcaption", "th"].map((name) => {
          const one = document.querySelector(name);
          let under = one;
          while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
          return [getComputedStyle(one).color, getComputedStyle(under).backgroundColor];
        })"""
    )

    def light(colour):
        parts = np.array([int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]) / 255
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for pair in pairs:
        low, high = sorted(map(light, pair))
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def test_a_policy_that_is_broken_is_seen(made, browser, tmp_path):
    """So that the absence of complaints means something."""
    shutil.copytree(made[1], tmp_path / "site")
    script = tmp_path / "site" / "app.js"
    script.write_text(script.read_text() + '\nfetch("http://127.0.0.2:9/away").catch(() => {});\n')
    with browsing(browser, tmp_path / "site") as one:
        one.opened()
        assert [text for text in one.complaints if "Content Security Policy" in text]


def test_files_are_not_enough(made, browser):
    """What the documentation says: a page from file:// has no origin, and browsers refuse it modules."""
    with browsing(browser, made[1]) as one:
        one.page.goto(Path(made[1] / "index.html").as_uri())
        one.page.wait_for_timeout(1500)
        assert "Ready" not in one.page.locator("#status").inner_text()
