"""`vqtool.attach`: the update after an optimizer's step, with accumulation, checkpointing, scalers and ranks."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vqtool
from vqtool.errors import VqtoolError
from vqtool.quantizers import VQ, Residual
from vqtool.quantizers.core import updates


class Model(nn.Module):
    """Encoder, quantizer, decoder."""

    def __init__(self, *, checkpointed: bool = False, make: object = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(8, 6)
        self.vq = (make or partial(Residual, levels=2, of=partial(VQ, codebook_size=16)))(8)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        z, _, loss = checkpoint(self.quantize, z, use_reentrant=False) if self.checkpointed else self.quantize(z)
        return (self.decoder(z) - x).square().mean() + loss

    def quantize(self, z: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.vq(z))


def batches(count: int, rows: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 10, 6, generator=generator) for _ in range(count)]


def train(model: nn.Module, many: list[Tensor], *, accumulate: int = 1, attached: bool = True) -> nn.Module:
    model(many[0])  # the start
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    if attached:
        vqtool.attach(optimizer, model)
    for x in many:
        optimizer.zero_grad()
        for part in x.chunk(accumulate):
            (model(part) / accumulate).backward()
        optimizer.step()
    return model


def vectors(model: nn.Module) -> Tensor:
    return torch.cat(list(model.vq.vectors()))


def by_hand(many: list[Tensor]) -> nn.Module:
    model = Model()
    model(many[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x in many:
        optimizer.zero_grad()
        z = model.encoder(x)
        result = model.vq(z)
        ((model.decoder(result.z) - x).square().mean() + result.loss).backward()
        optimizer.step()
        model.vq.update(result.stats)
    return model


def test_it_does_what_update_does_by_hand() -> None:
    many = batches(5)
    assert torch.equal(vectors(train(Model(), many)), vectors(by_hand(many)))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_are_added_up(accumulate: int) -> None:
    many = batches(4)
    whole, parts = train(Model(), many), train(Model(), many, accumulate=accumulate)
    assert torch.allclose(vectors(whole), vectors(parts), atol=1e-5)


def test_a_pass_that_checkpointing_repeats_counts_once() -> None:
    many = batches(4)
    plain, again = train(Model(), many), train(Model(checkpointed=True), many)
    assert torch.allclose(vectors(plain), vectors(again), atol=1e-6)


def test_evaluation_between_steps_changes_nothing() -> None:
    many = batches(4)
    plain, watched = Model(), Model()
    train(plain, many)
    watched(many[0])
    optimizer = torch.optim.SGD(watched.parameters(), lr=0.01)
    vqtool.attach(optimizer, watched)
    for x in many:
        watched.eval()
        watched(x * 3)
        watched.train()
        optimizer.zero_grad()
        watched(x).backward()
        optimizer.step()
    assert torch.equal(vectors(plain), vectors(watched))


def test_a_compiled_model_is_updated_too() -> None:
    many = batches(4)
    plain = train(Model(), many)
    model = Model()
    model(many[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    vqtool.attach(optimizer, model)
    compiled = torch.compile(model, backend="eager")
    for x in many:
        optimizer.zero_grad()
        compiled(x).backward()
        optimizer.step()
    assert torch.allclose(vectors(plain), vectors(model), atol=1e-5)


def test_a_step_that_the_scaler_skips_moves_nothing() -> None:
    model, (first, x) = Model(), batches(2)
    model(first)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    vqtool.attach(optimizer, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    before = vectors(model).clone()
    scaler.scale(model(x) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(before, vectors(model))
    optimizer.zero_grad()
    scaler.scale(model(x)).backward()
    scaler.step(optimizer)
    assert not torch.equal(before, vectors(model))


def test_detach_ends_it() -> None:
    model, (first, x) = Model(), batches(2)
    model(first)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    vqtool.attach(optimizer, model).detach()
    before = vectors(model).clone()
    model(x).backward()
    optimizer.step()
    assert torch.equal(before, vectors(model))


def test_a_model_without_a_quantizer_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(VqtoolError, match="holds no quantizer"):
        vqtool.attach(torch.optim.SGD(model.parameters(), lr=0.1), model)


def test_who_never_updates_is_warned_once() -> None:
    with pytest.warns(UserWarning, match="never updated") as seen:
        train(Model(), batches(updates.PATIENCE + 10), attached=False)
    assert len([w for w in seen if "never updated" in str(w.message)]) == 1


@pytest.mark.parametrize("how", ["attach", "by hand", "too few steps", "no moving average"])
def test_others_are_not_warned(how: str) -> None:
    steps = 5 if how == "too few steps" else updates.PATIENCE + 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if how == "by hand":
            by_hand(batches(steps))
        else:
            make = partial(VQ, codebook_size=16, codes="learned") if how == "no moving average" else None
            train(Model(make=make), batches(steps), attached=how == "attach")
