"""`vqtool verify` on kinds, on classes from files, and on what cannot be verified."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vqtool.catalog import Catalog, Component
from vqtool.catalog.discovery import Plugin
from vqtool.commands.verify import run
from vqtool.console import out
from vqtool.errors import VqtoolError

FOREIGN_MODULES = Path(__file__).parent.parent / "conformance" / "foreign_modules.py"
IDS = {
    "commitment-reaches-encoder", "ema-follows-inputs", "straight-through-gain", "ema-start", "one-owner",
    "revival-holds", "nan-contained", "eval-changes-nothing", "nearest-code", "forward-exact", "unused-code-rests",
    "codes-are-codes", "decode-round-trip", "state-round-trip", "deterministic",
}  # fmt: skip


def verify(target, kind=None, arguments=(), seed=0):
    """As the command line runs it: results alone go to stdout."""
    with out.alone_on_stdout():
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
    assert {"id", "status", "figure", "meaning", "fix"} <= set(document["laws"][0])


def test_a_broken_foreign_module_from_a_file(as_json):
    assert verify(f"{FOREIGN_MODULES}:GainOfFour", arguments=["dim=8"]) == 3
    document = as_json()
    (law,) = [law for law in document["laws"] if law["id"] == "straight-through-gain"]
    assert law["status"] == "broken"
    assert law["figure"] == pytest.approx(3.0, abs=1e-3)
    assert {law["id"] for law in document["laws"]} >= IDS


def test_people_see_what_it_does_and_how_to_fix_it(capsys):
    assert verify(f"{FOREIGN_MODULES}:FedWithOutputs", arguments=["dim=8", "codebook_size=16"]) == 3
    output = capsys.readouterr().out
    assert "broken: ema-follows-inputs" in output
    assert "does:" in output
    assert "fix:" in output


@pytest.mark.parametrize(
    ("target", "kind", "arguments", "message"),
    [
        ("quantizer", "emma", [], "emma"),
        ("quantiser", None, [], "neither a role"),
        ("norm", None, [], "no laws for the role"),
        ("quantizer", "ema", ["decay=2"], "decay"),
        ("quantizer", "ema", ["=2"], "not an override"),
        ("quantizer", "ema", ["dim=abc"], "`dim` is a whole number from 1, not 'abc'"),
        ("quantizer", "ema", ["dim=0"], "`dim` is a whole number from 1, not 0"),
        ("quantizer", "ema", ["dim=8.0"], "`dim` is a whole number from 1"),
        ("quantizer", None, ["dim=true"], "`dim` is a whole number from 1"),
        ("quantizer", "product-ema", ["dim=7"], "does not divide"),
        ("nowhere.py:A", None, [], "no file"),
        ("no_such_module_at_all:A", None, [], "cannot be imported"),
        (f"{FOREIGN_MODULES}:Plain", None, [], "has no `Plain`"),
        (f"{FOREIGN_MODULES}:PlainVQ", None, [], "needs `dim`"),
        (f"{FOREIGN_MODULES}:PlainVQ", None, ["dim=true", "size=3"], "cannot be built"),
        (f"{FOREIGN_MODULES}:PlainVQ", None, ["dimm=8"], "needs `dim`; .*'dimm'"),
        (f"{FOREIGN_MODULES}", None, [], "defines"),
        (f"{FOREIGN_MODULES}:MUTANTS", None, [], "not a torch module"),
        (f"{FOREIGN_MODULES}:PlainVQ", "ema", [], "with a role only"),
    ],
)
def test_a_users_mistake_is_one_error(target, kind, arguments, message):
    with pytest.raises(VqtoolError, match=message):
        verify(target, kind, arguments)


def test_a_class_named_with_a_dot_is_shown_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ema.py").touch()
    for given, meant in ("ema.Quantizer", "ema.py:Quantizer"), ("some.package.Quantizer", "some.package:Quantizer"):
        with pytest.raises(VqtoolError, match="neither a role nor") as caught:
            verify(given)
        assert caught.value.hint == f"vqtool verify {meant}"


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
    output = capsys.readouterr().out
    assert "broken: earlier-codes-only" in output
    assert "shift the inputs by one code" in output


PARTS = {
    "far": '''
"""A quantizer whose module needs a library that is not there."""
import no_such_library_at_all
''',
    "leaves": '''
"""A quantizer whose module ends the process."""
raise SystemExit(0)
''',
    "near": '''
"""A quantizer that is in order."""
from vqtool.quantizers.fsq import FSQ


class Near(FSQ):
    pass
''',
}


@pytest.fixture
def three_kinds(tmp_path, monkeypatch):
    """A role of three kinds, of which one can be loaded."""
    for name, text in PARTS.items():
        (tmp_path / f"kinds_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = Catalog()
    found.add(Plugin("kinds", "kinds", "1"), [Component("quantizer", n, f"kinds_{n}:Near", n) for n in PARTS])
    monkeypatch.setattr("vqtool.commands.verify.catalog", lambda: found)
    yield
    for name in PARTS:
        sys.modules.pop(f"kinds_{name}", None)


@pytest.mark.usefixtures("three_kinds")
def test_a_kind_that_cannot_be_loaded_takes_no_other_with_it(capsys, monkeypatch):
    monkeypatch.setattr(out, "mode", "json")
    assert verify("quantizer", arguments=["levels=[5, 5]"]) in (1, 2)
    captured = capsys.readouterr()
    reports = {r["target"]: r for r in json.loads(captured.out)["targets"]}
    assert set(reports) == {"quantizer far", "quantizer leaves", "quantizer near"}
    assert reports["quantizer near"]["kept"] >= 15
    assert reports["quantizer near"]["broken"] == 0
    assert "no_such_library_at_all" in reports["quantizer far"]["error"]["message"]
    assert "SystemExit" in reports["quantizer leaves"]["error"]["message"]
    assert "warning: quantizer far: " in captured.err


@pytest.mark.usefixtures("three_kinds")
def test_one_kind_that_cannot_be_loaded_is_an_error():
    with pytest.raises(VqtoolError, match="no_such_library_at_all"):
        verify("quantizer", "far")
    with pytest.raises(VqtoolError, match="SystemExit"):
        verify("quantizer", "leaves")


@pytest.mark.usefixtures("three_kinds")
def test_what_is_wrong_for_every_kind_is_an_error():
    with pytest.raises(VqtoolError, match=r"nonsense|no_such_library_at_all"):
        verify("quantizer", arguments=["nonsense=1"])


RUDE = '''
import sys
import torch
from torch import nn
print("imported")


class Own(BaseException):
    pass


class Rude(nn.Module):
    """The nearest of some codes, with habits."""

    def __init__(self, when="never"):
        super().__init__()
        self.when = when
        self.table = nn.Parameter(torch.randn(12, 6))
        print("built")
        self.at("built")

    def at(self, when):
        if self.when == when:
            sys.exit(0)
        if self.when == f"{when}, own":
            raise Own("mine")

    def forward(self, x):
        print("called")
        self.at("called")
        if not self.training:
            self.at("evaluated")
        codes = torch.cdist(x, self.table).argmin(-1)
        return self.table[codes], codes
'''


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("built", r"cannot be built: SystemExit\(0\)"),
        ("built, own", r"cannot be built: Own\('mine'\)"),
        ("called", "took no input"),
        ("called, own", "took no input"),
    ],
)
def test_a_module_that_leaves_is_one_error(tmp_path, when, message):
    (tmp_path / "rude.py").write_text(RUDE)
    with pytest.raises(VqtoolError, match=message):
        verify(f"{tmp_path / 'rude.py'}:Rude", arguments=[f"when={when}"])


@pytest.mark.parametrize(("when", "name"), [("evaluated", "SystemExit: 0"), ("evaluated, own", "Own: mine")])
def test_a_module_that_leaves_in_evaluation_only_breaks_laws(tmp_path, as_json, when, name):
    (tmp_path / "rude.py").write_text(RUDE)
    assert verify(f"{tmp_path / 'rude.py'}:Rude", arguments=[f"when={when}"]) == 3
    laws = {law["id"]: law for law in as_json()["laws"]}
    assert laws["eval-changes-nothing"]["status"] == "broken"
    assert laws["eval-changes-nothing"]["note"] == name


def test_what_a_module_prints_is_not_part_of_the_document(tmp_path, capsys, monkeypatch):
    (tmp_path / "rude.py").write_text(RUDE)
    monkeypatch.setattr(out, "mode", "json")
    verify(f"{tmp_path / 'rude.py'}:Rude")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["laws"]
    assert {"imported", "built", "called"} <= set(captured.err.split())


def test_a_file_that_leaves_when_it_is_imported(tmp_path):
    (tmp_path / "vq.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(VqtoolError, match="cannot be imported: SystemExit"):
        verify(f"{tmp_path / 'vq.py'}:A")
