"""Adversarial training: each player learns from its own loss alone, runs resume bit for bit, and nothing diverges."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_ranks import run_ranks
from tests.training.test_resume import HERE, killed_at, rows, same, session, stop_at
from tests.training.tiny import write_recipe
from vqtool.commands import improve, train
from vqtool.errors import VqtoolError
from vqtool.model import checkpoint
from vqtool.model.load import capable, from_checkpoint
from vqtool.recipe import load
from vqtool.training import adversary
from vqtool.training.adversary import Balance
from vqtool.training.loop import StageLoop
from vqtool.training.optimise import divided
from vqtool.training.rundir import RunDir
from vqtool.training.session import resume
from vqtool.training.starting import start_codebooks

PARTS = {
    "multi-scale-stft": "windows = [16]\nwidth = 4\ndilations = [1, 2]",
    "multi-period": "periods = [2, 3]\nwidth = 4\nlayers = 2",
}
LOSSES = "losses = { mse = 1.0, commitment = 0.25"


def adversarial(folder: Path, kind: str = "multi-scale-stft", own: str = "after = 3", seed: int = 0) -> Path:
    """The tiny recipe with a discriminator, which learns as `own` says."""
    folder.mkdir(exist_ok=True)
    path = write_recipe(folder, seed=seed, more=f'\n[stage.discriminator]\n{own}\n\n[discriminator]\nkind = "{kind}"\n')
    text = path.read_text().replace(LOSSES, f"{LOSSES}, hinge = 1.0, feature-matching = 1.0")
    path.write_text(f"{text}{PARTS[kind]}\n")
    return path


def first_loop(path: Path, options: list[str] | None = None) -> StageLoop:
    made = session(path, path.parent / "loop", ["stage.tokenizer.discriminator.after=0", *(options or [])])
    loop = StageLoop(made.model, made.recipe.stages[0], made.data, HERE, seed=0, log=lambda row: None)
    start_codebooks(loop)
    return loop


def gradients(loop: StageLoop, side: str) -> dict[str, torch.Tensor]:
    """The gradients of one player's loss by parameter, those that are not zero."""
    torch.manual_seed(0)
    outputs = loop.module.task.step(loop.module.parts, loop.batches.whole(0))
    said = loop.module._verdict(outputs)
    assert said is not None
    losses = loop.module.losses
    loss = said.loss if side == "discriminator" else sum(
        loop.module._value(name, {**outputs, **said.named}) for name in losses)  # fmt: skip
    loop.module.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in loop.parameters.items() if p.grad is not None and bool(p.grad.any())}


def leaks(loop: StageLoop) -> list[str]:
    """Parameters that the loss of the other player reaches."""
    of_decoder = [n for n in gradients(loop, "decoder") if n.startswith("parts.discriminator.")]
    return of_decoder + [n for n in gradients(loop, "discriminator") if not n.startswith("parts.discriminator.")]


@pytest.mark.parametrize("kind", PARTS)
def test_each_loss_reaches_its_own_player_alone(tmp_path: Path, kind: str) -> None:
    loop = first_loop(adversarial(tmp_path, kind))
    assert leaks(loop) == []
    own = {n for n in loop.parameters if n.startswith("parts.discriminator.")}
    reached = gradients(loop, "discriminator").keys()
    assert {n for n in own if not n.endswith("bias")} <= reached <= own, "those of some biases cancel at first"
    assert {n.split(".")[1] for n in gradients(loop, "decoder")} == {"encoder", "decoder"}


def test_the_law_finds_a_discriminator_that_is_not_held_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adversary, "functional_call", lambda module, _, inputs: module(*inputs))
    assert any(name.startswith("parts.discriminator.") for name in leaks(first_loop(adversarial(tmp_path))))


class Attached(torch.Tensor):
    """A tensor that does not detach."""

    def detach(self) -> torch.Tensor:  # type: ignore[override]  # of a planted bug
        return self


def test_the_law_finds_an_output_that_is_not_detached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(discriminator: Any, x_hat: torch.Tensor, *rest: Any) -> adversary.Verdict:
        return adversary.verdict(discriminator, x_hat.as_subclass(Attached), *rest)

    monkeypatch.setattr("vqtool.training.stage.verdict", leaky)
    assert any(name.startswith("parts.decoder.") for name in leaks(first_loop(adversarial(tmp_path))))


def test_a_step_moves_both_players_after_the_wait_and_one_before(tmp_path: Path) -> None:
    loop = first_loop(adversarial(tmp_path))
    loop.after = 1
    for step, moves in ((0, {"encoder", "decoder"}), (1, {"encoder", "decoder", "discriminator"})):
        before = {name: p.detach().clone() for name, p in loop.parameters.items()}
        loop.progress.step = step
        loop._step(loop.module)
        moved = {name.split(".")[1] for name, p in loop.parameters.items() if not torch.equal(p, before[name])}
        assert moved == moves


def test_rates_apart(tmp_path: Path) -> None:
    loop = first_loop(adversarial(tmp_path), ["stage.tokenizer.discriminator.lr=3e-4"])
    loop.optimisers.use(1.0)
    rates = {name: one.adam.param_groups[0] for name, one in loop.optimisers.items()}
    assert rates["main"]["lr"] == 1.0
    assert rates["discriminator"]["lr"] == pytest.approx(0.1)
    assert (rates["main"]["betas"], rates["discriminator"]["betas"]) == ((0.9, 0.99), (0.5, 0.9))


OPTIONS = ["train.valid_every=4", "stage.tokenizer.steps=12", "train.accumulate=2", "train.average=0.9"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(("step", "signalled"), [(3, True), (7, True), (10, False)])
def test_resumed_equals_unbroken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, signalled: bool, precision: str
) -> None:
    recipe, options = adversarial(tmp_path, own="after = 5"), [*OPTIONS, f"train.precision={precision}"]
    assert session(recipe, tmp_path / "whole", options).train() == 0
    broken = session(recipe, tmp_path / "broken", options)
    if signalled:
        with monkeypatch.context() as patch:
            stop_at(patch, step, signal.SIGTERM)
            assert broken.train() == signal.SIGTERM
        broken.run_dir.close()
    else:
        killed_at(monkeypatch, broken, step)
    again, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    if step > 5:
        assert "optimizer.discriminator.0.exp_avg" in state.tensors
    assert again.train(state=state) == 0
    same(tmp_path / "whole", tmp_path / "broken", "tokenizer", "last", "best")
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_a_state_of_before_there_were_several_optimizers_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(tmp_path)
    assert session(recipe, tmp_path / "whole", ["train.valid_every=4"]).train() == 0
    killed_at(monkeypatch, session(recipe, tmp_path / "broken", ["train.valid_every=4"]), 10)
    path = tmp_path / "broken" / "resume.safetensors"
    state = checkpoint.load(path)
    tensors = {name.replace("optimizer.main.", "optimizer."): t for name, t in state.tensors.items()}
    assert "optimizer.0.exp_avg" in tensors
    groups = [{k: v for k, v in g.items() if k != "optimizer"} for g in state.metadata["param_groups"]]
    checkpoint.save(path, tensors, {**state.metadata, "param_groups": groups})
    again, state = resume(RunDir.open(tmp_path / "broken"), HERE)
    assert again.train(state=state) == 0
    same(tmp_path / "whole", tmp_path / "broken", "last")


def test_two_halves_equal_one_batch(tmp_path: Path) -> None:
    adversarial(tmp_path, own="after = 3\nlr = 1e-4")
    options = ["stage.tokenizer.steps=8", "train.clip=0.5"]
    (whole,), (first, second) = (run_ranks(world, tmp_path, options) for world in (1, 2))
    moved = False
    for name in whole:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], whole[name], rtol=5e-3, atol=1e-3, msg=name)
        moved = moved or name.startswith("discriminator.")
    assert moved


@pytest.mark.parametrize("seed", range(3))
def test_300_steps_without_divergence(tmp_path: Path, seed: int) -> None:
    path = adversarial(tmp_path, own="after = 50\nlr = 1e-3", seed=seed)
    made = session(path, tmp_path / "run", ["stage.tokenizer.steps=300", "train.batch=8", "train.valid_every=150",
                                            "quantizer.levels=1", "discriminator.dilations=[1]"])  # fmt: skip
    assert made.train() == 0
    seen = [row for row in rows(tmp_path / "run") if row["split"] == "train"]
    assert max(row["mse"] for row in seen[-10:]) < 0.3  # type: ignore[type-var]
    assert all(row["discriminator.loss"] < 4 for row in seen[-10:])  # type: ignore[operator]


def test_balance_makes_pushes_equal() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    of_signal, other = (x**2).mean(), 50 * x.sin().mean()
    balance = Balance(["other"])
    scales, _ = balance(x, of_signal, {"other": other})
    scale = scales["other"]
    pushes = [torch.autograd.grad(loss, x, retain_graph=True)[0].norm() for loss in (of_signal, other * scale)]
    assert float(pushes[0]) == pytest.approx(float(pushes[1]), rel=1e-4)
    before = balance.averages.clone()
    balance(x, of_signal, {"other": other * torch.inf})
    assert balance.averages[1] == before[1], "an overflow is not averaged"
    assert balance(x, of_signal, {}) == ({}, {})
    scales, pushes = balance(x, of_signal, {"other": other})
    assert float(scales["other"]) == pytest.approx(float(scale), rel=1e-4), "nor is a loss that is switched off"
    assert float(pushes["other"]) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_a_weight_says_how_hard_a_balanced_loss_pushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    monkeypatch.setattr(adversary, "MOST", 1e9)
    loop = first_loop(adversarial(tmp_path), ["stage.tokenizer.losses.feature-matching=0"])
    loop.module.weights["hinge"] = weight
    total, terms, outputs = loop.module(loop.batches.whole(0))
    x_hat, weights = outputs["x_hat"], loop.module.weights
    named = {**outputs, **loop.module._verdict(outputs).named}  # type: ignore[union-attr]
    alone = sum(loop.module._value(n, named) * weights[n] for n in ("mse", "commitment"))
    both, signal_alone = (torch.autograd.grad(one, x_hat, retain_graph=True)[0] for one in (total, alone))
    assert float((both - signal_alone).norm() / signal_alone.norm()) == pytest.approx(weight, rel=1e-3)
    assert float(terms["adversarial.ratio"]) == pytest.approx(weight, rel=1e-3)


def test_loss_and_best_leave_the_discriminator_out(tmp_path: Path) -> None:
    made = session(adversarial(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=6"])
    assert made.train() == 0
    row = rows(tmp_path / "run")[-1]
    assert row["loss"] == pytest.approx(row["mse"] + 0.25 * row["commitment"], rel=1e-4)  # type: ignore[operator]
    assert {"hinge", "feature-matching", "discriminator.loss", "discriminator.accuracy"} <= row.keys()
    assert "adversarial.ratio" not in row, "it is known where there are gradients"


def test_what_encodes_and_decodes_has_no_discriminator(tmp_path: Path) -> None:
    made = session(adversarial(tmp_path), tmp_path / "run", ["stage.tokenizer.steps=6"])
    assert made.train() == 0
    path = tmp_path / "run" / "last.safetensors"
    whole, read = from_checkpoint(path)
    assert "discriminator" in whole.parts
    kept = {name: t for name, t in read.tensors.items() if not name.startswith("parts.discriminator.")}
    assert kept.keys() < read.tensors.keys()
    layout = {name: text for name, text in read.metadata["layout"].items() if name in kept}
    checkpoint.save(path, kept, {**read.metadata, "layout": layout})
    from vqtool.api import Decodes

    model, _ = capable(path, Decodes, "decode")
    assert "discriminator" not in model.parts
    x = torch.randn(2, 1, 32)
    assert torch.equal(model.decode(model.encode(x)), whole.decode(whole.encode(x)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t[: t.index("[discriminator]")], "loss `hinge` needs a part `[discriminator]`"),
        (lambda t: t.replace(", hinge = 1.0, feature-matching = 1.0", ""), "`[discriminator]` is never used"),
        (lambda t: t.replace("after = 3", "after = -1"), "discriminator.after"),
        (lambda t: t.replace("after = 3", "afterwards = 3"), "`discriminator.afterwards` is not an option"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    path = adversarial(tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(VqtoolError) as caught:
        load(path)
    assert says in str(caught.value.message) + "".join(map(str, getattr(caught.value, "others", ())))


def test_a_discriminator_that_nothing_trains(tmp_path: Path) -> None:
    path = adversarial(tmp_path)
    path.write_text(path.read_text().replace("hinge = 1.0, ", ""))
    with pytest.raises(VqtoolError, match="no loss of the stage trains the discriminator"):
        first_loop(path)


def test_a_stage_needs_a_loss_that_reads_no_discriminator(tmp_path: Path) -> None:
    path = adversarial(tmp_path)
    path.write_text(path.read_text().replace("mse = 1.0, commitment = 0.25, ", ""))
    with pytest.raises(VqtoolError, match="every loss of the stage reads the discriminator"):
        first_loop(path)


def test_every_role_has_one_optimizer() -> None:
    parameters = {name: torch.nn.Parameter(torch.zeros(1)) for name in ("parts.encoder.w", "losses.l.w")}
    found = divided(parameters, {"a": ("decoder",), "b": ("encoder",)})
    assert {name: list(some) for name, some in found.items()} == {"a": ["losses.l.w"], "b": ["parts.encoder.w"]}
    for roles in ({"a": ("decoder",)}, {"a": ("encoder",), "b": ("encoder",)}, {"0": ("encoder",)}):
        with pytest.raises(VqtoolError, match="should move `encoder` once"):
            divided(parameters, roles)


def of_discriminator(path: Path) -> dict[str, torch.Tensor]:
    """The discriminator's tensors in a checkpoint."""
    return {n: t for n, t in checkpoint.load(path).tensors.items() if n.startswith("parts.discriminator.")}


def test_a_run_from_another_keeps_the_discriminator_or_starts_it_anew(tmp_path: Path) -> None:
    recipe, idle = adversarial(tmp_path, own="after = 0"), ["stage.tokenizer.discriminator.after=100"]
    one = ["stage.tokenizer.steps=4"]
    common: dict[str, Any] = {"recipe": recipe, "seed": None, "device": "cpu", "stage": None}
    train.run(**common, overrides=one, out_dir=tmp_path / "first")
    first = tmp_path / "first" / "last.safetensors"
    train.run(**common, overrides=one + idle, out_dir=tmp_path / "kept", start=first)
    train.run(**common, overrides=one + idle, out_dir=tmp_path / "new", start=first, fresh=["discriminator"])
    kept, new = (of_discriminator(tmp_path / run / "last.safetensors") for run in ("kept", "new"))
    learned = of_discriminator(first)
    assert all(torch.equal(learned[name], kept[name]) for name in learned)
    weights = [name for name in learned if name.endswith("original1")]
    assert not any(torch.equal(learned[name], new[name]) for name in weights)
    with pytest.raises(VqtoolError, match=r"no part \[prior\] to start anew"):
        train.run(**common, overrides=one, out_dir=tmp_path / "no", start=first, fresh=["prior"])


@pytest.mark.parametrize("drop", [False, True])
def test_improve_trains_on_with_the_discriminator_or_without(tmp_path: Path, drop: bool) -> None:
    recipe = adversarial(tmp_path, own="after = 100")
    made = session(recipe, tmp_path / "run", ["stage.tokenizer.steps=4"])
    assert made.train() == 0
    made.run_dir.close()
    before, target = tmp_path / "run" / "tokenizer.safetensors", tmp_path / "out.safetensors"
    how: dict[str, Any] = {"data": None, "merge": False, "steps": 4, "device": "cpu", "no_discriminator": drop}
    improve.run(checkpoint=before, out_file=target, **how)
    model, _ = from_checkpoint(target)
    assert ("discriminator" in model.parts) is not drop
    assert ("hinge" in [loss.name for loss in model.recipe.stages[0].losses]) is not drop
    assert bool(of_discriminator(target)) is not drop
