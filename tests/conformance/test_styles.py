"""Healthy modules in many styles pass the gate; each planted fault is named by its law and fails it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import vqtool
from tests.conformance.averages import ByHand, Masked, Sonnet
from tests.conformance.faults import FAULTY
from tests.conformance.styles import HEALTHY, Codec, Residual, Tutorial, TwoMethods
from vqtool.conformance import Report
from vqtool.errors import VqtoolError


@pytest.mark.parametrize("style", HEALTHY)
def test_a_healthy_style_passes(style: str) -> None:
    report = vqtool.verify(HEALTHY[style])
    assert report.passes(), report


@pytest.mark.parametrize("faulty", FAULTY, ids=lambda cls: cls.__name__)
def test_a_fault_is_named(faulty: type[nn.Module]) -> None:
    report = vqtool.verify(faulty)
    assert FAULTY[faulty] in {outcome.law.id for outcome in (*report.fatal, *report.harmful)}, report
    assert not report.passes()


def test_codebooks_behind_projections_leave_few_laws_out() -> None:
    report = vqtool.verify(Codec)
    left_out = [outcome.law.id for outcome in report if outcome.verdict.status == "n/a"]
    assert len(left_out) <= 0.1 * len(report), left_out


def test_rounding_is_cosmetic_and_strict_fails_on_it() -> None:
    report = vqtool.verify(Residual, laws=["forward-exact", "straight-through-gain"])
    assert [outcome.law.id for outcome in report] == ["forward-exact", "straight-through-gain"]
    assert [outcome.law.id for outcome in report.cosmetic] == ["forward-exact"]
    assert report.passes()
    assert not report.passes(strict=True)


def test_an_update_of_its_own_can_be_named() -> None:
    laws = ["codebook-learns", "ema-follows-inputs"]
    status = {o.law.id: o.verdict.status for o in vqtool.verify(ByHand, laws=laws, update="update_ema")}
    assert set(status.values()) == {"kept"}
    again = vqtool.verify(ByHand, laws=laws, update=lambda m: m.update_ema())
    assert status == {o.law.id: o.verdict.status for o in again}
    assert {o.verdict.status for o in vqtool.verify(ByHand, laws=laws)} != {"kept"}


def test_an_instance_is_copied_and_tried_on_what_its_example_is_like() -> None:
    module = Sonnet()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    report = vqtool.verify(module, example=5.0 + torch.randn(2, 9, 12))
    assert isinstance(report, Report)
    assert report.passes(), report
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    with pytest.raises(VqtoolError, match="took no input"):
        vqtool.verify(module, example=torch.randn(2, 9, 13))


def test_how_it_is_called_can_be_given() -> None:
    class Needs(Masked):
        def forward(self, x, mask, step):
            return super().forward(x, mask)

    with pytest.raises(VqtoolError, match="took no input"):
        vqtool.verify(Needs)
    for forward in ("m(x, mask=None, step=0)", lambda m, x: m(x, None, 0)):
        assert vqtool.verify(Needs, forward=forward, laws=["nearest-code", "codes-are-codes"]).passes()
    with pytest.raises(VqtoolError, match="not an expression"):
        vqtool.verify(Needs, forward="m(x")


def test_the_way_back_can_be_given() -> None:
    def status(decode: str) -> str:
        return vqtool.verify(TwoMethods, decode=decode, laws=["decode-round-trip"])[0].verdict.status

    assert status("m.codebook(codes)") == status("codebook") == "kept"
    assert status("1 - m.codebook(codes)") == "broken"


def test_a_layout_that_is_given_is_what_it_is_judged_by() -> None:
    class ScramblesBoth(nn.Module):
        """[B, C, H, W] cut into vectors without a transposition."""

        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(32, 16))

        def forward(self, x):
            flat = x.reshape(-1, 16)
            codes = torch.cdist(flat, self.table).argmin(1)
            return self.table[codes].view(x.shape) + (x - x.detach()), codes

    assert vqtool.verify(ScramblesBoth, laws=["token-permutation"]).passes()  # right for [B, T, D]
    assert not vqtool.verify(ScramblesBoth, layout="BDHW", laws=["token-permutation"]).passes()
    with pytest.raises(VqtoolError, match="not a layout"):
        vqtool.verify(ScramblesBoth, layout="BCHW")


def test_two_runs_are_the_same() -> None:
    documents = [json.dumps(vqtool.verify(HEALTHY["dropping codec"]).document()) for _ in range(2)]
    assert documents[0] == documents[1]


def test_a_law_that_fails_by_itself_accuses_nobody() -> None:
    from vqtool.conformance import law

    space: dict[str, Any] = {}
    exec(compile("def check(subject):\n    return [][0]", law.__file__, "exec"), space)  # as if it stood in that file

    def called(subject: object) -> law.Verdict:
        Tutorial()(torch.zeros(3))
        return law.kept()

    for function, status in ((space["check"], "n/a"), (called, "broken")):
        made = law.Law("deterministic", function, "", "", "", "", "harmful")
        assert law.judge(made, None).verdict.status == status


def test_a_law_that_does_not_exist() -> None:
    with pytest.raises(VqtoolError, match="no law `nearest`"):
        vqtool.verify(Residual, laws=["nearest"])


@pytest.mark.parametrize(
    ("family", "name", "fields", "kept"),
    [
        ("encodec", "EncodecResidualVectorQuantizer",
         {"hidden_size": 16, "codebook_dim": 16, "codebook_size": 64, "target_bandwidths": [60.0]}, 9),
        ("mimi", "MimiResidualVectorQuantizer",
         {"hidden_size": 32, "codebook_size": 64, "codebook_dim": 16, "num_quantizers": 4,
          "vector_quantization_hidden_dimension": 16}, 9),
        ("dac", "DacResidualVectorQuantizer",
         {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "n_codebooks": 3, "codebook_size": 64}, 20),
        ("wav2vec2", "Wav2Vec2GumbelVectorQuantizer",
         {"conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
          "num_codevectors_per_group": 32, "codevector_dim": 16}, 8),
    ],
)  # fmt: skip
def test_quantizers_of_transformers(family: str, name: str, fields: dict[str, object], kept: int) -> None:
    pytest.importorskip("transformers")
    module = pytest.importorskip(f"transformers.models.{family}.modeling_{family}")
    report = vqtool.verify(getattr(module, name), config=fields)
    assert report.passes(), report
    assert sum(o.verdict.status == "kept" for o in report) >= kept, [o.row() for o in report]


LIBRARY = {
    "VectorQuantize": {"codebook_size": 32},
    "VectorQuantize behind a projection": {"codebook_size": 32, "codebook_dim": 8},
    "VectorQuantize with heads": {"codebook_size": 32, "heads": 2, "separate_codebook_per_head": True},
    "VectorQuantize by cosine": {"codebook_size": 32, "use_cosine_sim": True},
    "VectorQuantize frozen": {"codebook_size": 32, "freeze_codebook": True},
    "VectorQuantize learned": {"codebook_size": 32, "learnable_codebook": True, "ema_update": False},
    "VectorQuantize of images": {"codebook_size": 32, "accept_image_fmap": True},
    "GroupedResidualVQ": {"codebook_size": 32, "num_quantizers": 2, "groups": 2},
    "ResidualVQ by cosine": {"codebook_size": 32, "num_quantizers": 2, "use_cosine_sim": True},
    "ResidualFSQ": {"levels": [5, 5, 3], "num_quantizers": 2},
    "LFQ": {"codebook_size": 64},
    "SimVQ": {"codebook_size": 64},
    "RandomProjectionQuantizer": {"codebook_size": 32, "codebook_dim": 8},
    "LatentQuantize": {"levels": [5, 5, 8]},
    "HierarchicalVQ": {"codebook_size": 32, "scales": [1, 2, 4]},
    "FSP": {"levels": [5, 5, 3]},
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_well_known_library_is_not_accused(name: str) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    cls = getattr(library, name.split()[0])
    report = vqtool.verify(lambda: cls(dim=16, **LIBRARY[name]))
    assert report.passes(), report


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"num_quantizers": 3, "codebook_size": 32, "rotation_trick": False}, "straight-through-gain"),
        ({"num_quantizers": 3, "codebook_size": 32, "beam_size": 4}, "every-level-trained"),
    ],
)
def test_its_true_faults_are_named(options: dict[str, object], law: str) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    report = vqtool.verify(lambda: library.ResidualVQ(dim=16, **options))
    assert law in {outcome.law.id for outcome in report.harmful}
