"""Small runs that are really trained, each with one fault planted, and healthy ones of every quantizer beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtool.api import CodebookStats
from vqtool.catalog import catalog
from vqtool.parts.losses.mse import Mse
from vqtool.parts.tasks.contrast import Contrast
from vqtool.quantizers.core import composable
from vqtool.quantizers.core.codebook import Codebook
from vqtool.recipe import load
from vqtool.training.rundir import RunDir
from vqtool.training.runtime import Runtime
from vqtool.training.session import Session

WINDOWS, SAMPLES = 800, 64  # 8 tokens a window; 80 windows validate, 160 are held out

RECIPE = """
title = "{title}"

[data]
kind = "arrays"
path = "signals.npz"

[encoder]
{encoder}

[quantizer]
{quantizer}

{behind}

[train]
batch = 64
lr = {lr}
log_every = 5
valid_every = 20

[evaluate]
metrics = ["codes", "{metric}"]

[[stage]]
name = "tokenizer"
task = "{task}"
steps = {steps}
losses = {{ {losses} }}
{more}
"""


def waves(rng: np.random.Generator, windows: int = WINDOWS) -> np.ndarray:
    """[n, L]: two partials of random phase and size, and a little noise."""
    phase, other = rng.uniform(0, 2 * np.pi, (2, windows, 1))
    size = rng.uniform(0.1, 0.6, (windows, 1))
    time = np.arange(SAMPLES) * 2 * np.pi / 32
    x = np.sin(time + phase) + size * np.sin(3 * time + other) + 0.02 * rng.normal(size=(windows, SAMPLES))
    return x.astype(np.float32)


def waves_and_silence(rng: np.random.Generator) -> np.ndarray:
    """[n, L]: two windows of three are silent, but for a little noise; their tokens are nearly all the same."""
    x = waves(rng)
    silent = np.arange(WINDOWS) % 3 > 0
    x[silent] = 3e-3 * rng.normal(size=(silent.sum(), SAMPLES))
    return x


@dataclass(frozen=True)
class Case:
    """A run to be trained: its recipe, its data, and the fault that is planted while it trains."""

    name: str
    quantizer: str  # the lines of its table
    disease: str | None = None  # the id of the finding that must name it, and no other; None: healthy
    losses: str = "mse = 1.0, commitment = 0.25"
    steps: int = 60
    lr: float = 1e-3
    data: Callable[[np.random.Generator], np.ndarray] = waves
    plant: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    more: str = ""
    task: str = "autoencode"
    encoder: str = 'kind = "patch"\npatch = 8'
    behind: str = '[decoder]\nkind = "patch"'

    def write(self, folder: Path) -> Path:
        """The recipe and its data in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "signals.npz", x=self.data(np.random.default_rng(0)))
        path = folder / f"{self.name}.toml"
        metric = "contrastive" if self.task == "contrast" else "relative-error"
        path.write_text(RECIPE.format(title=self.name, metric=metric, quantizer=self.quantizer, losses=self.losses,
                                      steps=self.steps, lr=self.lr, more=self.more, task=self.task,
                                      behind=self.behind, encoder=self.encoder))  # fmt: skip
        return path

    def train(self, folder: Path) -> Path:
        """Train it in `folder`; the run's folder, which shows nothing of the fault."""
        with self.plant():
            return train(self.write(folder), folder / "run")


def train(recipe: Path, folder: Path, overrides: list[str] | None = None) -> Path:
    """Train a recipe as `vqtool train` does; returns the run's folder."""
    loaded = load(recipe, overrides or [])
    with RunDir.create(loaded, folder, argv=[], device="cpu") as run:
        session = Session(loaded, run, Runtime(torch.device("cpu")))
        session.start()
        assert session.train() == 0
        session.finish(seconds=0.0)
    return folder


# --- the faults ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def codes_started_as(change: Callable[[Tensor], Tensor], *, book: int | None = None) -> Iterator[None]:
    """Change the codes [K, d] that a start gave; only those of one of four levels, `book`, where given."""
    original, started = Codebook.start, []

    def start(self: Codebook, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]  # passed on as they are
        if book is None or len(started) % 4 == book:  # the check before a run starts them, too
            self.set(change(self.codes.detach().clone()))
        started.append(self)

    with mock.patch.object(Codebook, "start", start):
        yield


def all_far_but_one(codes: Tensor) -> Tensor:
    """No code but the first is near any input, and that one is where they all are."""
    far = 50 * codes.std() * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    far[0] = codes.mean(0)
    return far


def every_second_far(codes: Tensor) -> Tensor:
    """Half the codes start where no input comes."""
    far = 50 * codes.std() * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(torch.arange(len(codes))[:, None] % 2 == 0, codes, far)


def never_updated() -> contextlib.AbstractContextManager[object]:
    """A quantizer whose `update` does nothing."""
    return mock.patch.object(composable, "update_all")


@contextlib.contextmanager
def decay_of_one() -> Iterator[None]:
    """A moving average that keeps all of the past; the recipe's check refuses it, code by hand does not."""
    original = composable.update_all

    def update(stats: Mapping[Codebook, CodebookStats]) -> None:
        for book in stats:
            book.decay = 1.0
        original(stats)

    with mock.patch.object(composable, "update_all", update):
        yield


@contextlib.contextmanager
def sums_of_outputs() -> Iterator[None]:
    """The moving average is fed the code vectors that were chosen instead of the inputs that chose them."""
    original = Codebook.stats

    def stats(self: Codebook, tokens: Tensor, codes: Tensor, valid: Tensor | None) -> CodebookStats:
        fed = original(self, tokens, codes, valid)
        return replace(fed, sums=fed.counts[:, None] * self.codes)

    with mock.patch.object(Codebook, "stats", stats):
        yield


def a_loss_that_shrinks() -> contextlib.AbstractContextManager[object]:
    """The decoder learns 0.45 of the signal."""

    def forward(self: Mse, *, x_hat: Tensor, target: Tensor) -> Tensor:
        return (x_hat - 0.45 * target).square().mean()

    return mock.patch.object(Mse, "forward", forward)


def all_negatives_masked() -> contextlib.AbstractContextManager[object]:
    """A mask that leaves of the candidates only the right one."""

    def candidates(self: Contrast, hidden: Tensor, codes: Tensor) -> Tensor:
        return torch.eye(hidden.shape[1], dtype=torch.bool).expand(len(hidden), -1, -1)

    return mock.patch.object(Contrast, "candidates", candidates)


# --- the runs --------------------------------------------------------------------------------------------------------

EMA = 'kind = "ema"\ncodebook_size = 32\nrevive_below = 0.0\ndecay = 0.9\n'
RESIDUAL = 'kind = "residual-ema"\nlevels = 4\ncodebook_size = 16\n'
CONTEXT = '[context]\nkind = "transformer"\nwidth = 32\nlayers = 1\nkernel = 3'
CONTRASTIVE = Case(
    "healthy-contrast",
    'kind = "product-ema"\ncodebook_size = 16\ndecay = 0.9\n',
    losses="info-nce = 1.0, commitment = 0.25",
    task="contrast",
    more="options = { span = 2 }",
    behind=CONTEXT,
    steps=60,
    lr=1e-3,
)

UNHEALTHY = (
    Case("total-collapse", EMA, "collapse", plant=lambda: codes_started_as(all_far_but_one)),
    Case("half-dead", EMA, "dead-codes", plant=lambda: codes_started_as(every_second_far)),
    Case("level-3-of-4-dead", RESIDUAL + "revive_below = 0.0\ndecay = 0.9\n", "dead-level",
         plant=lambda: codes_started_as(all_far_but_one, book=2)),
    Case("duplicates", EMA + 'start = "random"\n', "duplicate-codes", data=waves_and_silence),
    Case("never-updated", EMA, "frozen-codebook", steps=150, lr=1e-2, plant=never_updated),
    Case("decay-of-one", EMA, "frozen-codebook", steps=150, lr=1e-2, plant=decay_of_one),
    Case("outputs-fed", EMA, "outputs-fed", steps=150, lr=1e-2, plant=sums_of_outputs),
    Case("soft-path-drifted", 'kind = "soft"\ncodebook_size = 16\ntemperature = 1.0\n', "soft-hard-gap",
         losses="mse = 1.0", steps=100),
    Case("range-0.45", 'kind = "ema"\ncodebook_size = 32\ndecay = 0.9\n', "range-drift", lr=1e-2,
         plant=a_loss_that_shrinks),
    replace(CONTRASTIVE, name="no-negatives", disease="no-negatives", plant=all_negatives_masked),
)  # fmt: skip


UNHURRIED = (
    "cosine",
    "fsq",
    "lfq",
    "gumbel",
    "product-gumbel",
    "simvq",
)  # no k-means start in the latent: more to learn
SOFT_TO_HARD = """
schedule."quantizer.temperature" = { kind = "geometric", from = 0.1, to = 0.01 }
schedule."quantizer.hard" = { kind = "linear", from = 0.0, to = 1.0 }
"""


def healthy_case(kind: str) -> Case:
    """The tiny run of a quantizer with its own defaults, but for a codebook as small as the data."""
    sizes = {"fsq": "levels = [4, 4]\n", "lfq": "bits = 4\n", "mixture-ema": "codebook_sizes = [8, 16]\n"}
    sizes |= dict.fromkeys(("residual", "grouped", "waterfill"), 'of = { kind = "vq", codebook_size = 16 }\n')
    experts = 'of = [{ kind = "vq", codebook_size = 8 }, { kind = "vq", codebook_size = 16 }]\n'
    sizes |= dict.fromkeys(("routed", "routed-modes"), experts)
    terms = catalog().load("quantizer", kind).terms
    weights = {"commitment": 0.25, "codebook": 1.0, "diversity": 1.0}
    losses = ", ".join(["mse = 1.0", *(f'"{term}" = {weights.get(term, 0.1)}' for term in sorted(terms))])
    return Case(
        f"healthy-{kind}",
        f'kind = "{kind}"\n' + sizes.get(kind, "codebook_size = 16\n"),
        losses=losses,
        steps=120 if kind in UNHURRIED else 50,
        lr=1e-2 if kind in UNHURRIED else 1e-3,
        more=SOFT_TO_HARD if kind == "soft" else "",
    )


def healthy() -> tuple[Case, ...]:
    """A healthy run of every quantizer in the catalog, and of the contrastive task."""
    kinds = [kind for kind in catalog().names("quantizer") if kind != "random-projection"]  # targets, not a bottleneck
    return *(healthy_case(kind) for kind in kinds), CONTRASTIVE


CASES = {case.name: case for case in (*UNHEALTHY, *healthy())}
_trained: dict[str, Path] = {}


def once(case: Case, folders: pytest.TempPathFactory) -> Path:
    """The run of a case, trained where it is first asked for in a session; not to be changed."""
    if case.name not in _trained:
        _trained[case.name] = case.train(folders.mktemp(case.name))
    return _trained[case.name]
