"""`vqtool bench tokenise`: one row, both peers on the same windows; and what it says without transformers."""

from __future__ import annotations

import pytest
import torch

from vqtool.bench import tokenise
from vqtool.errors import VqtoolError


def test_a_row_has_both_peers(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(tokenise, "BATCH", 1)
    monkeypatch.setattr(tokenise, "SAMPLES", 640)
    (row,) = tokenise.rows(torch.device("cpu"), 0.0)
    assert row["mode"] == "encode"
    assert set(row["peers"]) == {shape.name for shape in tokenise.PEERS}
    for peer in row["peers"].values():
        assert peer["ratio"] == pytest.approx(peer["ms"] / row["ours_ms"])
        assert peer["windows_per_s"] == pytest.approx(1000 / peer["ms"])


def test_ours_has_as_many_tokens_as_the_first_peer():
    codes = tokenise.Ours().eval()(torch.randn(1, 3, 640))
    assert codes.shape == (1, 20, 2)


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tokenise, "installed", lambda *names: None)
    with pytest.raises(VqtoolError) as raised:
        next(tokenise.rows(torch.device("cpu"), 0.0))
    assert "pip install --force-reinstall transformers" in str(raised.value.hint)
