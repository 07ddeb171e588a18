"""Models that vqtool did not train: healthy ones raise nothing, each illness is named, what is left open is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import vqtool
from tests.cli.run import vqtool as command_line
from tests.diagnosis.conftest import Trained
from tests.diagnosis.test_command import Diagnose, here  # noqa: F401  # a fixture
from tests.foreign import made
from tests.test_startup import command, loaded_after
from vqtool.commands import show
from vqtool.diagnosis.diagnosis import Diagnosis
from vqtool.errors import VqtoolError

RNG = np.random.default_rng(0)
EVEN = RNG.integers(0, 64, (20, 100, 3))


def named(report: Diagnosis, *severities: str) -> dict[str, str]:
    """The findings of these severities: id and place."""
    return {f.id: f.where for f in report.findings if f.severity in (severities or ("warn", "fail"))}


@pytest.mark.parametrize("family", made.FAMILIES)
def test_healthy_models_are_healthy(family: str) -> None:
    make, many, counted = made.FAMILIES[family]
    report = vqtool.diagnose({**make(), **made.others()})
    assert report.healthy, report
    assert len(report.codebooks) == many
    assert named(report, "note") == ({} if counted else {"no-counts": ""})
    assert all((book.perplexity is not None) == counted for book in report.codebooks)


def ill(state: made.State, name: str, change: Callable[[np.ndarray], Any]) -> Diagnosis:
    return vqtool.diagnose(made.changed(state, name, change))


LINE = np.linspace(-2, 2, 64)[:, None] @ RNG.normal(size=(1, 16))  # all codes on one line
HALF = made.with_rows(slice(32, None), 1e-8)
BOOK, USE = "quantizer.layers.1.codebook.embed", "quantizer.layers.1.codebook.cluster_size"
VECTORS = {  # of each family, a tensor of vectors, and the codebook that is ill with it
    "EnCodec": (BOOK, "layers.1"),
    "Mimi": ("quantizer.acoustic_residual_vector_quantizer.layers.1.codebook.embed_sum",
             "acoustic_residual_vector_quantizer.layers.1"),
    "DAC": ("quantizer.quantizers.1.codebook.weight", "quantizers.1"),
    "VQGAN": ("first_stage_model.quantize.embedding.weight", "first_stage_model.quantize"),
    "VQ-VAE": ("_vq_vae._embedding.weight", "_vq_vae"),
    "vector-quantize-pytorch, grouped": ("rvqs.1.layers.0.vq._codebook.embed", "rvqs.1.layers.0.vq"),
    "Jukebox": ("bottleneck.level_blocks.2.k", "level_blocks.2.k"),
    "unknown": ("tokenizer.my_quantizer.stages.1.centroids", "stages.1"),
}  # fmt: skip


@pytest.mark.parametrize("family", VECTORS)
def test_illnesses_of_the_vectors(family: str) -> None:
    name, where = VECTORS[family]
    state = made.FAMILIES[family][0]()
    assert named(ill(state, name, made.with_rows(np.s_[..., 3, :], np.nan))) == {"nan": where}
    if family != "Mimi":  # whose vectors are sums over use
        same = ill(state, name, made.with_rows(np.s_[..., 32:, :], state[name].reshape(64, -1)[:1]))
        assert named(same) == {"duplicate-codes": where}
        flat = ill(state, name, lambda v: v * 1e-3 + LINE[:, : v.shape[-1]])
        assert named(flat) == {"dimension-collapse": where}
        assert named(ill(state, name, lambda v: 0 * v)) == {"zero-codebook": where}
    if family != "DAC":  # whose lengths mean nothing
        assert named(ill(state, name, lambda v: v * 1e5)) == {"exploding-norms": where}
        assert named(ill(state, name, made.with_rows(np.s_[..., :2, :], 3e4))) == {"exploding-norms": where}


def test_illnesses_of_use() -> None:
    state = made.encodec()
    assert named(ill(state, USE, HALF)) == {"dead-codes": "layers.1"}
    assert named(ill(state, USE, made.with_rows(slice(1, None), 1e-9))) == {"dead-level": "layers.1"}
    alone = vqtool.diagnose(made.changed(made.vqgan_ema(), "quantize.embedding.cluster_size",
                                         made.with_rows(slice(1, None), 0.0)))  # fmt: skip
    assert named(alone) == {"collapse": "quantize"}


def test_several_illnesses_are_all_named() -> None:
    """One of one codebook explains nothing of another."""
    state = made.changed(made.encodec(4), USE, HALF)
    for q, change in ((2, made.with_rows(slice(3, 4), np.nan)), (3, made.with_rows(slice(32, None), 0.5))):
        state = made.changed(state, f"quantizer.layers.{q}.codebook.embed", change)
    assert named(vqtool.diagnose(state)) == {
        "nan": "layers.2",
        "dead-codes": "layers.1",
        "duplicate-codes": "layers.3",
    }


def test_twins_beside_a_codebook_of_zeros_are_found() -> None:
    """What explains the twins of one codebook hides none of another."""
    state = made.changed(made.dac(), "quantizer.quantizers.0.codebook.weight", lambda v: 0 * v)
    same = ill(state, "quantizer.quantizers.1.codebook.weight", made.with_rows(slice(30, None), 1.0))
    assert named(same) == {"zero-codebook": "quantizers.0", "duplicate-codes": "quantizers.1"}


def test_the_scale_of_a_moving_average_does_not_matter() -> None:
    """Sums over a step of a thousand tokens, of ten, or shares of one."""
    for scale in (1e3, 1.0, 1e-4):
        state = {name: v * scale if name.endswith("size") else v for name, v in made.encodec().items()}
        assert vqtool.diagnose(state).healthy
        assert named(ill(state, USE, lambda v: np.where(np.arange(64) < 32, v, 0))) == {"dead-codes": "layers.1"}


def test_codes_that_never_moved() -> None:
    start = RNG.uniform(-1 / 64, 1 / 64, (64, 16)).astype(np.float32)
    report = vqtool.diagnose({"quantize.embedding.weight": np.concatenate([made.rows()[:20], start[20:]])})
    assert named(report) == {"never-moved": "quantize"}
    assert "44 of 64 codes" in report.findings[0].cause
    few = vqtool.diagnose({"quantize.embedding.weight": np.concatenate([made.rows()[:50], start[50:]])})
    assert few.healthy
    fresh = vqtool.diagnose({"quantize.embedding.weight": start})
    assert fresh.healthy
    assert "never-moved" in named(fresh, "note")
    level = {f"quantizers.{q}.embedding.weight": made.rows(q) for q in range(2)} | {
        "quantizers.2.embedding.weight": start
    }
    assert named(vqtool.diagnose(level)) == {"never-moved": "quantizers.2"}


def test_fresh_models_are_not_started_and_not_ill() -> None:
    state = made.encodec()
    zeros = {n: np.zeros_like(v) if not n.endswith("inited") else v for n, v in state.items()}
    assert named(vqtool.diagnose(zeros), "note", "warn", "fail") == {"not-started": ""}
    flags = {n: np.zeros_like(v) if n.endswith("inited") else v for n, v in state.items()}
    assert named(vqtool.diagnose(flags), "note", "warn", "fail") == {"not-started": ""}
    mimi = {n: np.ones_like(v) if n.endswith("usage") else v for n, v in made.mimi().items()}
    never = vqtool.diagnose(mimi)  # vectors of their own, and counts that nothing updated
    assert named(never, "note", "warn", "fail") == {"no-counts": ""}


def test_fixes_are_words() -> None:
    report = ill(made.encodec(), USE, HALF)
    (found,) = [f for f in report.findings if f.severity == "fail"]
    assert found.fix
    assert not any(line.startswith(("-s", "vqtool train", "vqtool improve")) for line in found.fix)


def test_a_grid_needs_codes() -> None:
    grid = {"fsq.project_in.weight": made.rows(0, 3, 16), "fsq.project_out.weight": made.rows(0, 16, 3)}
    alone = vqtool.diagnose(grid)
    assert named(alone, "note") == {"no-codebook": ""}
    assert "FSQ or LFQ in `fsq`" in alone.findings[0].cause
    assert vqtool.diagnose(grid, codes=EVEN[:, :, 0], sizes=64).healthy
    assert named(vqtool.diagnose(grid, codes=EVEN[:, :, 0] % 2, sizes=64)) == {"collapse": "codebook"}


# --- codes -----------------------------------------------------------------------------------------------------------


def test_codes_alone_with_and_without_their_number() -> None:
    assert vqtool.diagnose(EVEN, sizes=64).healthy
    half = vqtool.diagnose(EVEN // 2, sizes=[64, 64, 64])
    assert named(half) == {"dead-codes": "level0"}
    unknown = vqtool.diagnose(EVEN // 2)
    assert [book.size for book in unknown.codebooks] == [32] * 3
    assert named(unknown, "note") == {"sizes-unknown": ""}
    dead = EVEN.copy()
    dead[:, :, 2] = 5
    assert named(vqtool.diagnose(torch.from_numpy(dead), sizes=64)) == {"dead-level": "level2"}


def test_codes_beside_a_model() -> None:
    state = made.dac()
    assert named(vqtool.diagnose(state, codes=EVEN), "note") == {}
    report = vqtool.diagnose(state, codes=(EVEN // 2).transpose(0, 2, 1))
    assert named(report) == {"dead-codes": "quantizers.0"}
    assert report.codebooks[0].vectors is not None
    assert named(vqtool.diagnose(state, codes=EVEN[:, :, :2]), "note") == {"no-counts": ""}
    with pytest.raises(VqtoolError, match="the codes have 4 levels, and `state dict` holds 3 codebooks"):
        vqtool.diagnose(state, codes=np.zeros((2, 4, 50), int), layout="nqt")


def test_codes_and_vectors_that_are_given_themselves() -> None:
    books = [made.rows(q) for q in range(3)]
    for report in (
        vqtool.diagnose(EVEN, vectors=books),
        vqtool.diagnose(codes=EVEN, vectors=torch.tensor(np.stack(books))),
    ):
        assert report.healthy
        assert [book.name for book in report.codebooks] == ["level0", "level1", "level2"]
        assert report.codebooks[2].vectors is not None
        np.testing.assert_array_equal(report.codebooks[2].vectors, books[2])
    used = vqtool.diagnose(vectors=books, usage=[made.use(q) for q in range(3)])
    assert all(book.perplexity for book in used.codebooks)
    with pytest.raises(VqtoolError, match="--sizes has 2 numbers"):
        vqtool.diagnose(codes=EVEN, sizes=[64, 64], layout="ntq")


def test_floats_that_are_whole_are_codes() -> None:
    assert vqtool.diagnose(EVEN[:, :, 0].astype(np.float32), sizes=64).tokens == 2000


def test_an_own_run_is_counted_anew_by_codes(trained: Trained) -> None:
    report = vqtool.diagnose(trained("healthy-ema"), codes=np.zeros((4, 50), int))
    assert named(report) == {"collapse": "codebook"}
    assert report.tokens == 200


# --- what it looks like, and the command -----------------------------------------------------------------------------


def test_a_report_prints_and_writes_its_page(tmp_path: Path) -> None:
    report = ill(made.encodec(), USE, HALF)
    assert report.worst() == "fail"
    assert not report.healthy
    assert "layers.1  " in str(report)
    assert "EnCodec codebooks" in str(report)
    assert repr(report) == "<Diagnosis of state dict: unhealthy, 1 fail>"
    report.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "dead-codes in layers.1" in page
    assert "Recipe and versions" not in page
    assert "no training history" not in page.lower()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A model, as each kind of file that needs no torch, and codes."""
    state = made.changed({**made.encodec(), **made.others()}, USE, HALF)
    save_file(state, tmp_path / "m.safetensors")
    np.savez(tmp_path / "m.npz", **state)  # type: ignore[arg-type]  # arrays by name
    np.save(tmp_path / "codes.npy", EVEN // 2)
    torch.save({name: torch.tensor(value) for name, value in state.items()}, tmp_path / "m.pt")
    return {path.suffix: path for path in tmp_path.iterdir()}


def test_the_command_reads_every_kind_of_file(files: dict[str, Path], here: Diagnose) -> None:  # noqa: F811
    for suffix in (".safetensors", ".npz", ".pt"):
        result = here.document(files[suffix], strict=True)
        assert here.code == 3
        assert result["family"] == "EnCodec"
        assert [(f["id"], f["where"]) for f in result["findings"] if f["severity"] == "fail"] == [
            ("dead-codes", "layers.1")
        ]
    counted = here.document(files[".safetensors"], codes=files[".npy"], strict=True)
    assert counted["tokens"] == 2000
    assert here.document(files[".npy"], sizes="64,64,64")["codebooks"][2]["dead"] == 32
    again = here.document(
        files[".safetensors"], vectors=r"layers\.(\d)\.codebook\.embed$", usage=r"layers\.(\d).+size$"
    )
    assert [book["perplexity"] for book in again["codebooks"]] == [book["perplexity"] for book in result["codebooks"]]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".npy"])
def test_no_torch_where_the_file_needs_none(suffix: str, files: dict[str, Path]) -> None:
    heavy = ("torch", "rich", "matplotlib", "sklearn", "scipy", "vqtool.recipe.options")
    assert loaded_after(command("diagnose", str(files[suffix])), *heavy, "numpy") == {"numpy"}
    assert loaded_after(command("show", str(files[suffix])), *heavy) == set()


def test_options_that_need_a_recipe_are_refused(files: dict[str, Path], here: Diagnose) -> None:  # noqa: F811
    for options in ({"split": "test"}, {"data": files[".npy"]}):
        with pytest.raises(VqtoolError, match="holds no recipe, so vqtool cannot encode data with it"):
            here.words(files[".safetensors"], **options)
    for sizes in ("x", "0", "64,,64", "-3"):
        with pytest.raises(VqtoolError, match="--sizes should be whole numbers"):
            here.words(files[".npy"], sizes=sizes)


def test_a_file_without_a_known_codebook_says_what_it_holds(tmp_path: Path, here: Diagnose) -> None:  # noqa: F811
    save_file(made.others(), tmp_path / "m.safetensors")
    with pytest.raises(VqtoolError) as raised:
        here.words(tmp_path / "m.safetensors")
    assert "`quantizer.speaker_embedding.weight` F32[40, 16]" in str(raised.value)
    assert "--vectors REGEX" in str(raised.value.hint)
    assert "--codes FILE" in str(raised.value.hint)


def test_pages_and_strict_on_the_command_line(files: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = command_line("diagnose", files[".safetensors"], "--report", page, "--strict", "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["healthy"] is False
    assert page.is_file()
    done = command_line("diagnose", files[".safetensors"], "--report", files[".safetensors"])
    assert done.returncode == 2
    assert files[".safetensors"].stat().st_size > 1000


def test_show_lists_the_tensors_and_the_codebooks(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in (".safetensors", ".npz", ".pt", ".npy"):
        assert show.run(path=files[suffix]) == 0
    words = capsys.readouterr().out
    assert "quantizer.layers.*.codebook.embed" in words
    assert "decoder.embed_tokens.weight" in words
    assert "EnCodec" in words
