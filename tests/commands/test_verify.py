"""`vqtool verify` on kinds, on classes from files, and on what cannot be verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqtool.commands.verify import run
from vqtool.console import out
from vqtool.errors import VqtoolError

STRANGERS = Path(__file__).parent.parent / "testing" / "strangers.py"
IDS = {
    "commitment-reaches-encoder", "ema-follows-inputs", "straight-through-gain", "ema-start", "one-owner",
    "revival-holds", "nan-contained", "eval-changes-nothing", "nearest-code", "forward-exact", "unused-code-rests",
    "codes-are-codes", "decode-round-trip", "state-round-trip", "deterministic",
}  # fmt: skip


def verify(target, kind=None, arguments=(), seed=0):
    return run(target=target, kind=kind, arguments=list(arguments), seed=seed)


@pytest.fixture
def as_json(capsys, monkeypatch):
    monkeypatch.setattr(out, "mode", "json")
    return lambda: json.loads(capsys.readouterr().out)


def test_a_kind_of_ours(as_json):
    assert verify("quantizer", "gradient", ["codebook_size=40", "dim=6"]) == 0
    document = as_json()
    assert document["target"] == "quantizer gradient"
    assert document["broken"] == 0
    assert document["kept"] >= 20
    assert {law["id"] for law in document["laws"]} >= IDS | {"accumulation"}
    assert {"id", "status", "figure", "meaning", "mend"} <= set(document["laws"][0])


def test_a_broken_stranger_from_a_file(as_json):
    assert verify(f"{STRANGERS}:GainOfFour", arguments=["dim=8"]) == 3
    document = as_json()
    (law,) = [law for law in document["laws"] if law["id"] == "straight-through-gain"]
    assert law["status"] == "broken"
    assert law["figure"] == pytest.approx(3.0, abs=1e-3)
    assert {law["id"] for law in document["laws"]} >= IDS


def test_people_are_told_what_it_does_and_how_to_mend_it(capsys):
    assert verify(f"{STRANGERS}:FedWithOutputs", arguments=["dim=8", "codebook_size=16"]) == 3
    told = capsys.readouterr().out
    assert "broken: ema-follows-inputs" in told
    assert "does:" in told
    assert "mend:" in told


@pytest.mark.parametrize(
    ("target", "kind", "arguments", "message"),
    [
        ("quantizer", "emma", [], "emma"),
        ("quantiser", None, [], "neither a role"),
        ("norm", None, [], "no laws for the role"),
        ("quantizer", "ema", ["decay=2"], "decay"),
        ("quantizer", "ema", ["=2"], "no override"),
        ("nowhere.py:A", None, [], "no file"),
        ("no_such_module_at_all:A", None, [], "cannot be imported"),
        (f"{STRANGERS}:Plain", None, [], "has no `Plain`"),
        (f"{STRANGERS}:PlainVQ", None, [], "needs `dim`"),
        (f"{STRANGERS}:PlainVQ", None, ["dim=true", "size=3"], "cannot be built"),
        (f"{STRANGERS}", None, [], "defines"),
        (f"{STRANGERS}:MUTANTS", None, [], "no torch module"),
        (f"{STRANGERS}:PlainVQ", "ema", [], "with a role only"),
    ],
)
def test_a_users_mistake_is_one_error(target, kind, arguments, message):
    with pytest.raises(VqtoolError, match=message):
        verify(target, kind, arguments)


def test_a_file_that_does_not_even_import(tmp_path):
    (tmp_path / "vq.py").write_text("import torch\nraise RuntimeError('half written')\n")
    with pytest.raises(VqtoolError, match="half written"):
        verify(f"{tmp_path / 'vq.py'}:A")


def test_a_prior(as_json):
    assert verify("prior", "gru", ["layers=1", "width=24"]) == 0
    document = as_json()
    assert document["target"] == "prior gru"
    assert document["broken"] == 0
    assert {"earlier-codes-only", "draws-are-the-distribution", "beam-finds"} <= {law["id"] for law in document["laws"]}


LEAKING = '''
from torch import cat, zeros_like
from vqtool.parts.priors.gru import Gru


class Leaking(Gru):
    """Reads a code one step too early, and has no beam search of its own worth."""

    def outputs(self, codes, condition=None, *, fed=None):
        logits, latents = super().outputs(codes, condition, fed=fed)
        return logits.clone().index_add(1, codes.new_tensor([0]), logits[:, -1:] * 0.1), latents
'''


def test_a_prior_of_a_file_that_reads_the_future(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(LEAKING)
    assert verify(f"{tmp_path / 'mine.py'}:Leaking") == 3
    told = capsys.readouterr().out
    assert "broken: earlier-codes-only" in told
    assert "shift the inputs by one code" in told
