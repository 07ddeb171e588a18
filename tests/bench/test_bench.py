"""`vqtool bench`: what it measures and how it says it, on tiny shapes."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from vqtool.bench import generation, quantizers, race
from vqtool.bench.measure import in_turns
from vqtool.bench.peers import EnCodecFormula, GumbelFormula, installed
from vqtool.bench.quantizers import Case
from vqtool.commands import bench
from vqtool.console import out
from vqtool.errors import VqtoolError
from vqtool.quantizers.core.search import nearest


def test_a_table_of_tiny_cases(monkeypatch, capsys):
    tiny = (Case("ema", 64, 16, 8), Case("residual-ema", 64, 16, 8, books=2), Case("product-gumbel", 64, 8, 8, books=2))
    monkeypatch.setattr(quantizers, "CASES", tiny)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(out, "mode", "json")
    assert bench.run(case="quantizers", kinds=[], device="cpu") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["machine"]["threads"] == 1
    assert len(document["cases"]) == 6
    for row in document["cases"]:
        assert {"case", "mode", "ours_ms", "ours_mib", "peers", "floor_ms"} <= set(row)
        assert row["ours_ms"] > 0
        for peer in row["peers"].values():
            assert peer["ratio"] == pytest.approx(peer["ms"] / row["ours_ms"])
    assert "EnCodec's formula" in document["cases"][0]["peers"]


def test_without_a_case_it_lists_them_and_with_a_wrong_one_it_says_so(capsys):
    assert bench.run(kinds=[], case=None, device="cpu") == 0
    assert "quantizers" in capsys.readouterr().out
    with pytest.raises(VqtoolError, match="no case `quantizer`") as raised:
        bench.run(case="quantizer", kinds=[], device="cpu")
    assert "quantizers" in str(raised.value.hint)


def test_variants_are_measured_in_turns():
    order = []
    figures = in_turns({n: lambda n=n: order.append(n) for n in "ab"}, torch.device("cpu"), seconds=0.0)
    assert order == ["a", "b"] * 4  # one to warm up and for memory, three rounds
    assert set(figures) == {"a", "b"}


def test_memory_of_a_call_is_seen():
    figures = in_turns(
        {"big": lambda: torch.ones(30 * 2**18).sum(), "small": lambda: torch.ones(8).sum()},
        torch.device("cpu"),
        seconds=0.0,
    )
    if figures["big"].mib is None:
        pytest.skip("this system does not report it")
    assert 25 < figures["big"].mib < 40
    assert figures["small"].mib < 10


def test_the_peers_formulas_quantize():
    x = torch.randn(1, 40, 6)
    formula = EnCodecFormula(6, 12).eval()
    codes, _ = nearest(x[0], formula.embed)
    assert torch.allclose(formula(x)[0][0], formula.embed[codes], atol=1e-5)
    gumbel = GumbelFormula(6, 5, 2).eval()
    value, _ = gumbel(x)
    books = gumbel.codevectors.view(2, 5, 3)
    chosen = gumbel.weight_proj(x).view(40, 2, 5).argmax(-1)
    wanted = torch.cat([books[g][chosen[:, g]] for g in range(2)], 1)
    assert torch.allclose(value[0], wanted, atol=1e-6)


@pytest.fixture
def broken_transformers(tmp_path, monkeypatch):
    """A library that can be imported but not used, as transformers is beside a torchvision that does not fit torch."""
    (tmp_path / "transformers.py").write_text(
        "def __getattr__(name):\n    if name.startswith('_'):\n        raise AttributeError(name)\n"
        "    raise RuntimeError('operator torchvision::nms does not exist\\nand more')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [n for n in sys.modules if n.split(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    installed.cache_clear()
    yield
    sys.modules.pop("transformers", None)
    installed.cache_clear()


def test_a_broken_peer_is_left_out_and_reported(broken_transformers, capsys):
    for _ in range(2):
        assert installed("transformers", "GPT2Config") is None
    assert capsys.readouterr().err.count("cannot be used, so it is left out: operator torchvision::nms") == 1


def test_a_case_continues_without_a_broken_peer(broken_transformers, monkeypatch, capsys):
    tiny = generation.Case(1, prompt=2, new=2, codes=16, layers=1, heads=2, width=8, top_k=3)
    monkeypatch.setattr(generation, "CASES", (tiny,))
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(out, "mode", "json")
    assert bench.run(case="generation", kinds=[], device="cpu") == 0
    assert json.loads(capsys.readouterr().out)["cases"][0]["peers"] == {}


def test_a_missing_peer_is_not_reported(capsys):
    assert installed("no_such_library") is None
    assert capsys.readouterr().err == ""


def test_kinds_race_each_other(monkeypatch, capsys):
    monkeypatch.setattr(race, "TOKENS", 64)
    monkeypatch.setattr(race, "DIM", 8)
    monkeypatch.setattr(race, "CODES", 16)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(out, "mode", "json")
    assert bench.run(case="quantizers", kinds=["ema", "residual-ema", "fsq", "ema"], device="cpu") == 0
    rows = json.loads(capsys.readouterr().out)["cases"]
    assert [row["mode"] for row in rows] == ["train", "encode"]
    for row in rows:
        assert row["first"] == "ema 16"
        assert set(row["peers"]) == {"residual-ema 4 x 16", "fsq 1000"}
        for peer in row["peers"].values():
            assert peer["ratio"] == pytest.approx(peer["ms"] / row["ours_ms"])


def test_an_unknown_racer_is_reported_before_anything_is_measured(capsys):
    with pytest.raises(VqtoolError, match="no quantizer called"):
        bench.run(case="quantizers", kinds=["ema", "emaa"], device="cpu")
    assert capsys.readouterr().out == ""


def test_only_quantizers_race():
    with pytest.raises(VqtoolError, match="only quantizers can be compared"):
        bench.run(case="generation", kinds=["ema"], device="cpu")


def test_libraries_that_search_on_gpus_are_raced_where_installed(monkeypatch):
    """A CPU in the place of the GPU, and stand-ins for the libraries."""
    seen = []

    def assign(x, centroids, x_sq, out=None):
        seen.append((tuple(x.shape), tuple(centroids.shape), x_sq.allclose(x.square().sum(2))))

    libraries = {
        "flash_kmeans.assign_euclid_triton": SimpleNamespace(euclid_assign_triton=assign),
        "cuvs.cluster.kmeans": SimpleNamespace(
            KMeansParams=lambda n_clusters: n_clusters, predict=lambda params, x, table: seen.append(params)
        ),
    }
    monkeypatch.setattr(quantizers, "installed", lambda name, *needed: libraries.get(name))
    case, x = Case("ema", 64, 16, 8), torch.randn(1, 64, 8)
    assert set(dict(quantizers.peers(case, "encode", x, x))) == {"EnCodec's formula"}
    monkeypatch.setattr(quantizers, "GPUS", ("cpu",))
    assert set(dict(quantizers.peers(case, "train", x, x))) == {"EnCodec's formula"}
    for call in dict(quantizers.peers(case, "encode", x, x)).values():
        call()
    assert seen == [((1, 64, 8), (1, 16, 8), True), 16]
