"""`vqtool.CodebookMonitor` in a loop of one's own: what it counts, what it finds, and that it leaves no trace."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vqtool
from vqtool.diagnosis.monitor import CodebookMonitor, Findings
from vqtool.diagnosis.news import UnhealthyError
from vqtool.errors import VqtoolError
from vqtool.quantizers import FSQ, VQ, Residual

D, K = 8, 32


class Model(nn.Module):
    """An encoder, a quantizer that returns (z, codes, loss), and a decoder."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.quantizer, self.decoder = nn.Linear(D, D), quantizer, nn.Linear(D, D)
        with torch.no_grad():
            self.encoder.weight.copy_(torch.eye(D))

    def forward(self, x: Tensor) -> Tensor:
        z, _, loss, *_ = self.quantizer(self.encoder(x))
        return nn.functional.mse_loss(self.decoder(z), x) + loss.sum()


def batch(seed: int, tokens: int = 256) -> Tensor:
    return torch.randn(4, tokens // 4, D, generator=torch.Generator().manual_seed(seed))


def trained(
    model: nn.Module, monitor: CodebookMonitor, steps: range, event: tuple[int, Callable[[], Any]] | None = None,
    data: Callable[[int], Tensor] = batch,
) -> list[tuple[int, Any]]:  # fmt: skip
    """What each look of a training found; `event` is what happens before a step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    if any(isinstance(m, vqtool.quantizers.VQ | vqtool.quantizers.Residual) for m in model.modules()):
        vqtool.attach(optimizer, model)
    found = []
    for step in steps:
        if event is not None and step == event[0]:
            event[1]()
        optimizer.zero_grad()
        model(data(step)).backward()
        optimizer.step()
        found += [(step, finding) for finding in monitor.look(step)]
    return found


def residual(levels: int = 3) -> nn.Module:
    vqp = pytest.importorskip("vector_quantize_pytorch")
    return vqp.ResidualVQ(dim=D, num_quantizers=levels, codebook_size=K, kmeans_init=True)


def single(**options: Any) -> nn.Module:
    vqp = pytest.importorskip("vector_quantize_pytorch")
    return vqp.VectorQuantize(D, K, kmeans_init=True, **options)


def made_vq() -> nn.Module:
    return Residual(D, levels=2, of=lambda dim: VQ(dim, codebook_size=K))


# --- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [residual, single, made_vq, lambda: FSQ(D, levels=(4, 4))])
def test_healthy_training_is_no_news(make: Callable[[], nn.Module]) -> None:
    model = Model(make())
    monitor = CodebookMonitor(model, every=10)
    assert trained(model, monitor, range(1, 121)) == []
    assert monitor.report().healthy
    assert monitor.figures()["codes.used"] > 0.9


def die(model: Model, level: int) -> Callable[[], None]:
    """Move all codes of a level but two out of reach, as a spike of the learning rate does."""

    def event() -> None:
        book = model.quantizer.layers[level]._codebook  # type: ignore[union-attr, index]  # of another library
        book.embed[:, 2:] = 1e3
        book.embed_avg[:, 2:] = 1e3 * book.cluster_size[:, 2:, None]

    return event


def test_a_level_that_dies_is_found_at_the_next_look_and_only_once() -> None:
    model = Model(residual())
    monitor = CodebookMonitor(model, every=10)
    ((step, finding), *more) = trained(model, monitor, range(1, 101), (41, die(model, 1)))
    assert (step, finding.id, finding.where, finding.severity) == (50, "dead-level", "level1", "fail")
    assert finding.step == 50
    assert "level 2 of 3 (`level1`) is dead" in str(finding)
    assert "since step 50" in str(finding)
    assert more == []
    assert not any("-s " in fix or "vqtool" in fix for fix in finding.fix), "no options of a recipe that is not there"


def test_a_second_level_that_dies_is_news_too() -> None:
    model = Model(residual())
    monitor = CodebookMonitor(model, every=10)
    trained(model, monitor, range(1, 61), (45, die(model, 1)))
    found = trained(model, monitor, range(61, 81), (61, die(model, 2)))
    assert [(step, f.id) for step, f in found] == [(70, "dead-level")]
    assert {found[0][1].where, *found[0][1].also} == {"level1", "level2"}


def away(model: Model) -> Callable[[], Any]:
    return lambda: model.encoder.bias.data.add_(50.0)


def test_an_encoder_that_moves_away_is_found_within_two_looks() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=10)
    step, finding = trained(model, monitor, range(1, 101), (45, away(model)))[0]
    assert finding.id == "collapse"
    assert 45 < step <= 60
    assert finding.step in (50, 60)


def test_an_encoder_that_runs_away_is_found_by_its_error_where_use_holds() -> None:
    vectors = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
    monitor = CodebookMonitor(every=1)
    found = []
    for step in range(1, 21):
        codes, noise = torch.arange(K).repeat(20), 0.1 if step < 11 else 0.1 * 1.3 ** (step - 10)
        offset = noise * torch.randn(20 * K, D, generator=torch.Generator().manual_seed(step))
        monitor.add("vq", codes, vectors[codes] + offset, vectors=vectors)
        found += monitor.look(step)
    assert [f.id for f in found] == ["commitment-growing"]


def test_inputs_that_are_all_alike_are_a_collapse() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=10)
    found = trained(
        model, monitor, range(1, 41), data=lambda step: batch(step if step < 21 else 0)[:, :1] + 0 * batch(0)
    )
    assert [f.id for _, f in found] == ["collapse"]
    assert found[0][0] <= 40


def test_a_codebook_that_is_never_updated_is_frozen() -> None:
    model = Model(single(ema_update=False))
    monitor = CodebookMonitor(model, every=10)
    found = trained(model, monitor, range(1, 31))
    assert [(f.id, step) for step, f in found] == [("frozen-codebook", 20)]


def test_codes_that_become_nan_are_found() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=10)

    def event() -> None:
        model.quantizer._codebook.embed[0, 0] = torch.nan  # type: ignore[union-attr, index]  # of another library

    assert trained(model, monitor, range(1, 31), (25, event))[0][1].id == "nan"


def test_it_stops_for_what_is_there_at_two_looks() -> None:
    model = Model(residual())
    monitor = CodebookMonitor(model, every=10, stop_on="fail")
    with pytest.raises(UnhealthyError, match="dead-level") as stopped:
        trained(model, monitor, range(1, 101), (41, die(model, 1)))
    assert stopped.value.where == "step 60"
    assert stopped.value.exit_code == 3


# --- what it counts --------------------------------------------------------------------------------------------------


def test_only_the_steps_before_a_look_are_counted() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=50)
    opened = []
    for step in range(1, 101):
        model(batch(step))
        opened.append(monitor.gate.open)
        monitor.look(step)
    assert sum(opened[51:]) == 10, "10 tokens a code are there in fewer steps"
    assert int(monitor.counts["codebook"].sum()) == 10 * 256


def test_steps_may_start_anywhere_and_be_counted_in_strides() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=10)
    for step in range(12_345, 12_385, 4):
        model(batch(step))
        monitor.look(step)
    assert [row["step"] for row in monitor.rows] == [12353, 12361, 12373, 12381]


def test_passes_in_evaluation_mode_are_not_counted() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=2)
    model(batch(0))
    model.eval()
    model(batch(1))
    model.train()
    monitor.look(2)
    assert int(monitor.counts["codebook"].sum()) == 256


def test_the_second_pass_of_checkpointing_is_not_counted() -> None:
    for reentrant in (True, False):
        model = Model(made_vq())
        monitor = CodebookMonitor(model, every=1)
        x = batch(0).requires_grad_()
        checkpoint(model, x, use_reentrant=reentrant).backward()
        monitor.look(1)
        assert int(monitor.counts["level0"].sum()) == 256
        monitor.close()


def test_a_compiled_model_is_counted() -> None:
    model = Model(made_vq())
    model(batch(0))  # starts the codebooks
    monitor = CodebookMonitor(torch.compile(model, backend="eager"), every=2)
    compiled = torch.compile(model, backend="eager")
    for step in (1, 2):
        compiled(batch(step))
        monitor.look(step)
    assert int(monitor.counts["level0"].sum()) == 512


def test_codes_below_zero_are_none_and_too_large_ones_are_refused() -> None:
    monitor = CodebookMonitor(every=1)
    monitor.add("vq", torch.tensor([[0, 1], [-1, 3]]), size=4)
    monitor.look(1)
    assert monitor.counts["vq"].tolist() == [1, 1, 0, 1]
    monitor.add("vq", torch.tensor([4]))
    with pytest.raises(VqtoolError, match="has 4 codes, and 1 were 4 or more"):
        monitor.look(2)


def test_bfloat16_latents_are_fine() -> None:
    model = Model(single())
    monitor = CodebookMonitor(model, every=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(batch(0))
    monitor.look(1)
    assert monitor.figures()["codes.perplexity"] > 1


def test_nothing_is_copied_from_the_device_before_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(made_vq())
    monitor = CodebookMonitor(model, every=10)
    model(batch(0))
    monitor.look(1)

    def refused(*_: object) -> None:
        raise AssertionError("a wait for the device")

    for name in ("item", "cpu", "tolist", "numpy", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(Tensor, name, refused)
    (tap,) = monitor.taps
    codes = torch.zeros(4, 64, 2, dtype=torch.long)
    z = torch.zeros(4, 64, D)
    tap.see((z,), vqtool.api.Quantized(z + 1, codes, z))
    assert monitor.look(2) == []


# --- by hand, and what it gives --------------------------------------------------------------------------------------


def test_codes_can_be_added_by_hand() -> None:
    vectors = torch.randn(K, D)
    monitor = CodebookMonitor(every=5)
    for step in range(1, 11):
        codes = torch.randint(0, K, (4, 64))
        monitor.add("level0", codes, vectors[codes] + 0.1 * torch.randn(4, 64, D), vectors=vectors)
        monitor.add("level1", torch.zeros(256, dtype=torch.long), size=K)
        found = monitor.look(step)
    assert [(f.id, f.where) for f in found] == [("dead-level", "level1")]
    assert monitor.figures()["commitment"] == pytest.approx(0.01, rel=0.2)
    with pytest.raises(VqtoolError, match="how many codes has `other`"):
        monitor.add("other", codes)
    with pytest.raises(VqtoolError, match="whole numbers"):
        monitor.add("level0", torch.zeros(3))


def test_figures_are_flat_numbers_by_level() -> None:
    model = Model(residual(2))
    monitor = CodebookMonitor(model, every=1)
    assert monitor.figures() == {}
    model(batch(0))
    monitor.look(1)
    figures = monitor.figures()
    assert {"codes.used", "codes.perplexity", "codes.perplexity.level1", "codes.used.level0"} <= figures.keys()
    assert all(type(value) is float for value in figures.values())


def test_the_report_is_a_diagnosis(tmp_path: Path) -> None:
    model = Model(residual(2))
    monitor = CodebookMonitor(model, every=1)
    model(batch(0))
    monitor.look(1)
    report = monitor.report()
    assert [book.name for book in report.codebooks] == ["level0", "level1"]
    assert all(book.vectors is not None and "effective_rank" in book.measures for book in report.codebooks)
    report.to_html(tmp_path / "codes.html")
    assert "level1" in (tmp_path / "codes.html").read_text()


def test_findings_print_as_paragraphs() -> None:
    finding = vqtool.diagnosis.report.Finding(
        "collapse", "fail", 0.01, 0.05, "", "the codebook collapsed", ("less",), step=9
    )
    assert str(Findings([finding])) == "fail collapse since step 9: the codebook collapsed\n    fix: less"
    assert not Findings()


# --- leaving no trace ------------------------------------------------------------------------------------------------


def test_closing_takes_every_hook_away() -> None:
    model = Model(residual())
    with CodebookMonitor(model, every=1):
        assert any(m._forward_hooks for m in model.modules())
    assert not any(m._forward_hooks or {"encode", "quantize"} & vars(m).keys() for m in model.modules())


class Encoding(nn.Module):
    """Its codes come out of `encode` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.codebook = nn.Embedding(K, D)

    def encode(self, x: Tensor) -> Tensor:
        return torch.cdist(x, self.codebook.weight.expand(len(x), -1, -1)).argmin(-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.codebook.weight[self.encode(x)]


@pytest.mark.parametrize("make", [residual, Encoding])
def test_copies_and_pickles_of_the_model_have_no_monitor(make: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(D, D), make())
    with CodebookMonitor(model, every=5) as monitor:
        model(batch(0))
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
            assert other.state_dict().keys() == model.state_dict().keys()
            other(batch(1))
            monitor.look(1)
            assert next(iter(monitor._counted().values())).sum() == 256


def test_a_model_without_quantizers_is_refused_with_candidates() -> None:
    with pytest.raises(VqtoolError, match="no quantizer was found in Sequential") as refused:
        CodebookMonitor(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4)))
    assert "`0` [9, 4]" in (refused.value.hint or "")


def test_a_quantizer_without_codes_to_see_is_refused_at_the_first_look() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codebook = nn.Parameter(torch.randn(K, D))

        def forward(self, z: Tensor) -> tuple[Tensor, None, Tensor]:
            return self.codebook[torch.cdist(z, self.codebook[None]).argmin(-1)], None, z.new_zeros(())

    model = Model(Hidden())
    monitor = CodebookMonitor(model)
    model(batch(0))
    with pytest.raises(VqtoolError, match="no codes came out of `quantizer`"):
        monitor.look(1)


def test_where_nothing_is_counted_one_warning_says_why() -> None:
    model = Model(single()).eval()
    monitor = CodebookMonitor(model, every=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, 9):
            model(batch(0))
            assert monitor.look(step) == []
    assert len([w for w in caught if "evaluation mode" in str(w.message)]) == 1


def test_wrong_options_are_refused() -> None:
    for options in ({"every": 0}, {"stop_on": "note"}):
        with pytest.raises(VqtoolError, match="1 or more"):
            CodebookMonitor(nn.Linear(2, 2), **options)  # type: ignore[arg-type]  # wrong on purpose


def test_use_that_grows_from_a_poor_start_is_no_news() -> None:
    for grows in (True, False):
        monitor = CodebookMonitor(every=1)
        found = []
        for step in range(1, 11):
            used = min(K, 2 + 3 * step) if grows else 8 + step % 2  # codes of 32
            monitor.add("vq", torch.arange(20 * K) % used, size=K)
            found += [(step, f.id) for f in monitor.look(step)]
        assert found == ([] if grows else [(6, "dead-codes")])


def test_a_collapse_from_the_start_is_found_at_the_second_look() -> None:
    monitor = CodebookMonitor(every=1)
    found = []
    for step in range(1, 4):
        monitor.add("vq", torch.arange(20 * K) // (20 * K - 1), size=K)
        found += [(step, f.id) for f in monitor.look(step)]
    assert found == [(2, "collapse")]
