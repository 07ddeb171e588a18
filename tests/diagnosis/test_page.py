"""The report's page: what stands in it, that nothing escapes into it, its size, and that it works in a browser."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis.handmade import NASTY, codebook, picked, report, rows
from vqtool.diagnosis.charts import Axis
from vqtool.diagnosis.code_map import places
from vqtool.diagnosis.explorer import streams_data
from vqtool.diagnosis.page import page, write
from vqtool.diagnosis.png import data_uri
from vqtool.diagnosis.report import Codebook, Finding, Report
from vqtool.diagnosis.samples import Samples

BROWSER = os.environ.get("VQTOOL_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
FINDINGS = (
    Finding("nothing-wrong", "ok", 0.1, 0.5, "experience", "all is well"),
    Finding("dead-codes", "warn", 0.25, 0.2, "a paper", "Codes <died>.", ("-s quantizer.revive_below=0.1",), "codebook",
            step=20, changed="lr rose"),
    Finding("nan", "fail", 1.0, 0.0, "", "A loss became NaN.", where="tokenizer", step=55),
)  # fmt: skip


class Outline(HTMLParser):
    """Headings, addresses and open tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_it_says_what_was_found() -> None:
    text = page(report(codebook(), findings=FINDINGS, history=rows()), picked((16,)))
    words = " ".join(Outline(text).words)
    for wanted in ("unhealthy", "1 fail, 1 warn", "Codes <died>.", "-s quantizer.revive_below=0.1",
                   "Since step 20: lr rose.",
                   "passed: nothing-wrong", "1,234 tokens of split valid",
                   "vqtool 0.1.0", "codes.perplexity", "range_ratio", 'title = "by hand"', "window 3"):  # fmt: skip
        assert wanted in words, wanted
    assert words.index("A loss became NaN") < words.index("Codes <died>")  # the worst first


def test_a_finding_is_marked_at_its_step() -> None:
    """The mark stands in every chart of its stage, as far along as its step is of the last one, by its number."""
    text = page(report(codebook(), findings=FINDINGS, history=rows(60)), None)
    marks = re.findall(r'<g class="mark (\w+)">.*?<line x1="([\d.]+)".*?<text [^>]*>(\d)</text>', text)
    x = Axis(60, 0, 1, False).x
    assert set(marks) == {("fail", f"{x(55):.1f}", "1"), ("warn", f"{x(20):.1f}", "2")}
    assert len(marks) == 2 * 2


def test_a_gap_breaks_the_line() -> None:
    broken = rows(60)
    for row in broken[3:5]:
        row["loss"] = float("nan")
    path = re.search(r'class="train" d="([^"]+)"', page(report(codebook(), history=broken), None))
    assert path is not None
    assert path[1].count("M") == 2
    assert "nan" not in path[1]


def test_names_cannot_break_out_of_the_page() -> None:
    bad = Finding(NASTY, "fail", 1.0, None, NASTY, NASTY, (NASTY,), NASTY, 5, NASTY)
    book = Codebook(NASTY, 4, np.arange(4), np.eye(4), {"used": 3.0, NASTY: 1.0})
    history = [{"stage": NASTY, "step": 1, "split": "train", NASTY: 1.0}]
    metadata = {"recipe": NASTY, "version": NASTY, "plugins": {NASTY: NASTY}, "stage": NASTY}
    title = {"title": NASTY}
    nasty = Report(Path(NASTY), NASTY, 1, (book,), {NASTY: 1.0}, history, title, metadata, None, (bad,))
    samples = picked((4,))
    samples = Samples(NASTY, samples.pieces, samples.piece_tokens, samples.examples, samples.originals, None, NASTY)
    outline = Outline(page(nasty, samples))
    assert outline.tags.count("script") == 2
    assert sum(word.count("alert(1)") for word in outline.words) > 10  # shown, as text


def test_it_needs_no_network() -> None:
    text = page(report(codebook(), findings=FINDINGS, history=rows()), picked((16,)))
    assert "default-src 'none'" in text
    assert all(address.startswith(("#", "data:")) for address in Outline(text).addresses)
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched


def test_it_can_be_written_of_next_to_nothing(tmp_path: Path) -> None:
    """No data, no history, no vectors, no counts, no codebook."""
    write(report(Codebook("codebook", 8, None, None)), tmp_path / "a.html", None)
    write(report(), tmp_path / "b.html", None)
    assert "holds no codebook" in (tmp_path / "b.html").read_text()


def test_images_are_shown_beside_their_reconstructions() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 3, 12, 10)).astype(np.float32)
    samples = Samples("valid", images, 4, (np.zeros((4, 4, 2), np.int32),), images, images)
    assert page(report(codebook(size=4, dead=0)), samples).count('src="data:image/png;base64,') == 4
    matplotlib = pytest.importorskip("matplotlib.image")
    read = matplotlib.imread(io.BytesIO(base64.b64decode(data_uri(images[0], 0, 1).split(",")[1])), format="png")
    np.testing.assert_allclose(read, images[0].transpose(1, 2, 0), atol=1 / 255)


def test_windows_that_can_be_heard_have_their_sound_and_their_first_tokens() -> None:
    rng = np.random.default_rng(0)
    signals, codes = rng.normal(size=(2, 1, 12_000)), rng.integers(-1, 4, (2, 6000, 1))
    samples = replace(picked((4,)), originals=signals, reconstructions=0.5 * signals, codes=codes, rate=16_000.0)
    shown = streams_data(samples)
    assert shown["shape"] == [2, 4096, 1]
    assert shown["seconds"] == 8192 / 16_000
    np.testing.assert_array_equal(unpacked(shown["codes"], "<i4").reshape(2, -1), codes[:, :4096, 0])
    heard = unpacked(shown["sound"], "<i2").reshape(2, -1).astype(float)
    wanted = signals[:, 0, :8192] / np.abs(signals[:, 0, :8192]).max(1, keepdims=True)
    np.testing.assert_allclose(heard / 32767, wanted, atol=1e-4)
    assert abs(unpacked(shown["rebuilt"], "<i2").max() - heard.max()) <= 1
    for rate in (0.0, 100.0):
        assert "sound" not in streams_data(replace(samples, rate=rate))


def unpacked(text: str, kind: str) -> np.ndarray:
    """The numbers that the page's script reads."""
    return np.frombuffer(base64.b64decode(text), kind)


def test_a_large_codec_makes_a_small_page(tmp_path: Path) -> None:
    """8 x 1024 codes, each with examples: at most 3 MB, within 10 s."""
    sizes = (1024,) * 8
    books = [codebook(f"level{i}", 1024, 128, dead=24, seed=i) for i in range(8)]
    began = time.perf_counter()
    samples = picked(sizes, windows=2000, tokens=40)
    write(report(*books, history=rows(5000)), tmp_path / "big.html", samples)
    assert time.perf_counter() - began < 10
    assert (tmp_path / "big.html").stat().st_size < 3e6
    assert np.mean([(e[:, 0, 0] >= 0).mean() for e in samples.examples]) > 0.99


def test_a_huge_codebook_is_cut_to_its_most_used_codes() -> None:
    book = codebook("codebook", 2**16, 2, dead=2**15)
    assert len(page(report(book), None)) < 1e6


# --- the map ---------------------------------------------------------------------------------------------------------


def test_the_map_keeps_the_shape_of_codes_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(100, 2)) * (3, 1)
    turned = flat @ np.linalg.qr(rng.normal(size=(8, 8)))[0][:2] + 5
    there = places(turned, np.ones(100))
    inside = (np.abs(there - 0.5) < 0.499).all(1)
    assert inside.mean() > 0.95
    ratio = np.linalg.norm(np.diff(there[inside], axis=0), axis=1) / np.linalg.norm(
        np.diff(flat[inside], axis=0), axis=1
    )
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_far_off_dead_codes_are_drawn_at_the_edge_and_do_not_press_the_others_together() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(64, 4))
    counts = np.ones(64)
    vectors[32:] *= 1000
    counts[32:] = 0
    there = places(vectors, counts)
    assert np.ptp(there[:32], axis=0).max() > 0.8
    np.testing.assert_allclose(np.abs(there[32:] - 0.5).max(1), 0.5)
    assert np.isfinite(places(np.full((5, 1), np.nan), np.ones(5))).all()


def test_tsne_where_it_is_installed() -> None:
    pytest.importorskip("sklearn")
    vectors = np.concatenate([np.eye(8)[0] + 0.01 * np.eye(8), np.eye(8)[1] + 0.01 * np.eye(8)])
    there = places(vectors, np.ones(16), "tsne")
    assert np.isfinite(there).all()


# --- in a browser ----------------------------------------------------------------------------------------------------

PROBE = """<script>
const notes = [];
const note = (name, value) => notes.push(name + "=" + value);
const windows = () => document.querySelectorAll("#windows .window path").length;
const at = (svg, x, y) => { const b = svg.getBoundingClientRect();
  return { clientX: b.left + x * b.width, clientY: b.top + y * b.height, bubbles: true }; };
const bars = document.getElementById("bars"), map = document.getElementById("map");
const heading = () => document.getElementById("panel-h").textContent;
note("start", heading() + "/" + windows());
bars.dispatchEvent(new MouseEvent("click", at(bars, 0.001, 0.5)));
note("first bar", heading() + "/" + windows());
bars.dispatchEvent(new MouseEvent("click", at(bars, 0.999, 0.5)));
note("last bar", heading() + "/" + windows() + "/" + document.getElementById("windows").textContent);
const dot = map.querySelector('circle[data-code="3"]'), box = dot.getBoundingClientRect();
dot.dispatchEvent(new MouseEvent("click", { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2,
  bubbles: true }));
note("dot", heading() + "/" + windows());
const label = () => document.getElementById("dot-label"), inside = (a, b) =>
  a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
const labelled = [...map.querySelectorAll("circle[data-code]")].map((each) => {
  const b = each.getBoundingClientRect();
  map.dispatchEvent(new PointerEvent("pointermove", { clientX: b.left + b.width / 2, clientY: b.top + b.height / 2 }));
  return label().textContent === "code " + each.dataset.code &&
    inside(label().getBoundingClientRect(), map.getBoundingClientRect());
});
note("labels", labelled.length + "/" + labelled.every(Boolean));
map.dispatchEvent(new PointerEvent("pointerleave"));
note("no label", label().textContent === "");
bars.focus();
bars.dispatchEvent(new KeyboardEvent("keydown", { key: "Home", bubbles: true }));
bars.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
note("keys", bars.getAttribute("aria-valuenow") + "/" + (document.activeElement === bars));
const chooser = document.getElementById("book");
chooser.value = "1"; chooser.dispatchEvent(new Event("change"));
note("book", heading());
const code = document.getElementById("code");
code.value = "5"; code.dispatchEvent(new Event("change"));
note("number", heading());
const raster = document.getElementById("raster");
raster.dispatchEvent(new MouseEvent("click", at(raster, 0.525, 0.25)));
note("token", heading() + "/" + chooser.value);
raster.dispatchEvent(new PointerEvent("pointermove", at(raster, 0.525, 0.25)));
note("hover", document.getElementById("stream-note").textContent);
note("streams", document.getElementById("stream").options.length + "/" +
  document.querySelectorAll("#signal path").length + "/" + document.getElementById("play").hidden);
note("wide", document.documentElement.scrollWidth <= document.documentElement.clientWidth);
const result = document.createElement("pre"); result.id = "notes"; result.textContent = notes.join("\\n");
document.body.append(result);
</script>"""


def browse(path: Path, *options: str) -> tuple[str, str]:
    """(the page's elements after its scripts ran, what the console said)."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", *options,
         f"--user-data-dir={path.parent / 'profile'}", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: set VQTOOL_BROWSER to one")
def test_in_a_browser_the_page_loads_and_a_click_shows_windows(tmp_path: Path) -> None:
    first, second = codebook("level0", 16), codebook("level1", 16, seed=1)
    samples = picked((16, 16), windows=60)
    text = page(report(first, second, findings=FINDINGS, history=rows()), samples)
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", PROBE + "</body>"))
    elements, console = browse(path, "--window-size=390,800")
    assert console == ""
    found = re.search(r'<pre id="notes">(.*?)</pre>', elements, re.DOTALL)
    assert found is not None, "the probe did not come to its end"
    result = dict(line.split("=", 1) for line in found[1].splitlines())
    order = np.argsort(-first.counts, kind="stable")  # type: ignore[operator]  # it has counts
    assert result["start"] == result["first bar"] == f"Code {order[0]} of level0/4"
    assert result["last bar"].startswith("Code 15 of level0/")
    assert result["dot"] == "Code 3 of level0/4"
    assert result["labels"] == "16/true", "each code has its label, whole inside of the map"
    assert result["no label"] == "true"
    assert result["keys"] == "1/true"
    assert result["book"].endswith("of level1")
    assert result["number"] == "Code 5 of level1"
    assert samples.codes is not None
    code, other = samples.codes[0, 10].tolist()
    assert result["token"] == f"Code {code} of level0/0"
    assert result["hover"] == f"token 11 of 20: level0 {code}, level1 {other}"
    assert result["streams"] == "3/1/true"  # no sound: the rate is not known
    assert result["wide"] == "true", "the page is wider than a phone"
