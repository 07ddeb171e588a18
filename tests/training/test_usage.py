"""What a validation counts, against counting token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.test_resume import HERE, session
from tests.training.tiny import write_recipe
from vqtool.api.quantizer import PART_NAMES, Quantizer
from vqtool.catalog import catalog
from vqtool.diagnosis.measures import entropy
from vqtool.model import checkpoint
from vqtool.model.seen import Seen, quantizer_metadata, vector_tensors
from vqtool.training.usage import Tally, Usage
from vqtool.training.validate import Output, gap

DIM = 6


def quantizer(kind: str, **options: object) -> Quantizer:
    """A started quantizer in evaluation mode."""
    made = catalog().make("quantizer", kind, options, DIM)
    made.initialise(torch.randn(4, 64, DIM, generator=torch.Generator().manual_seed(1)))
    return made.eval()


def latents(windows: int = 5) -> torch.Tensor:
    return 3 + 2 * torch.randn(windows, 40, DIM, generator=torch.Generator().manual_seed(2))


def counted(made: Quantizer, z: torch.Tensor, batch: int) -> Seen:
    with Tally(made) as tally:
        for part in z.split(batch):
            made(part)
    return tally.seen()


@pytest.mark.parametrize(("kind", "options"), [
    ("ema", {"codebook_size": 16}),
    ("residual-ema", {"codebook_size": 8, "levels": 3}),
    ("product-ema", {"codebook_size": 8, "groups": 3}),
    ("gradient", {"codebook_size": 16}),
])  # fmt: skip
def test_counts_errors_and_offsets_are_those_of_every_token(kind: str, options: dict[str, int]) -> None:
    made, z = quantizer(kind, **options), latents()
    seen = counted(made, z, 2)
    flat, codes = z.flatten(0, 1).double(), made(z).codes.flatten(0, 1)
    rest = flat.clone()
    for q, vectors in enumerate(v.double() for v in made.vectors() or ()):
        own = (vectors != 0).any(0) if kind == "product-ema" else torch.ones(DIM, dtype=torch.bool)
        for k in range(len(vectors)):
            mine = codes[:, q] == k
            assert seen.tensors[f"usage.{q}.counts"][k] == mine.sum()
            if not mine.any():
                assert seen.tensors[f"usage.{q}.offsets"][k] == 0
                continue
            off = (rest[mine] - vectors[k])[:, own]
            torch.testing.assert_close(
                seen.tensors[f"usage.{q}.errors"][k].double(), off.square().sum(), rtol=1e-4, atol=1e-4
            )
            torch.testing.assert_close(seen.tensors[f"usage.{q}.offsets"][k].double(), off.mean(0).square().sum(),
                                       rtol=1e-3, atol=1e-5)  # fmt: skip
        rest = rest - vectors[codes[:, q]]
        name = made.codebook_names[q]
        assert seen.row[f"codes.error.{name}"] == pytest.approx(
            float(seen.tensors[f"usage.{q}.errors"].sum()) / len(flat)
        )
    power = (flat - flat.mean(0)).square().sum()
    left = (flat - made(z).hard.flatten(0, 1)).square().sum()
    assert seen.row["codes.snr_db"] == pytest.approx(float(10 * torch.log10(power / left)), abs=1e-3)


@pytest.mark.parametrize("kind", catalog().names("quantizer"))
def test_batches_do_not_matter_and_names_are_those_of_the_codebooks(kind: str) -> None:
    made, z = quantizer(kind), latents()
    one, many = counted(made, z, 5), counted(made, z, 1)
    assert one.row == pytest.approx(many.row, rel=1e-4, abs=1e-6)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(tensor, many.tensors[name], rtol=1e-3, atol=1e-4)
    metadata = quantizer_metadata(made)
    assert metadata["names"][0] in ("codebook", f"{PART_NAMES[made.topology]}0")
    for q, vectors in enumerate(vector_tensors(made).values()):
        assert len(vectors) == made.codebook_sizes[q]


def test_masked_tokens_count_nowhere() -> None:
    made, z = quantizer("ema", codebook_size=8), latents(2)
    mask = torch.arange(40)[None].expand(2, -1) < 30
    spoiled = z.masked_fill(~mask[..., None], torch.nan)
    with Tally(made) as tally:
        made(spoiled, mask)
    with Tally(made) as short:
        made(z[:, :30])
    assert tally.seen().tensors["usage.0.counts"].sum() == 60
    torch.testing.assert_close(tally.seen().tensors["usage.0.errors"], short.seen().tensors["usage.0.errors"])


def test_entropies_of_soft_choices() -> None:
    made, z = quantizer("soft", codebook_size=8, temperature=0.5), latents()
    row = counted(made, z, 2).row
    probs = made(z).probs.detach().flatten(0, 2).double()
    assert row["soft.token_bits"] == pytest.approx(np.mean([entropy(p) for p in probs.numpy()]), rel=1e-4)
    assert row["soft.use_bits"] == pytest.approx(entropy(probs.mean(0).numpy()), rel=1e-4)
    hard = made(z).hard.flatten(0, 1)
    flat = z.flatten(0, 1)
    share = (made(z).soft.detach().flatten(0, 1) - hard).square().sum() / (flat - flat.mean(0)).square().sum()
    assert row["soft.distance"] == pytest.approx(float(share), rel=1e-4)


def test_a_validation_without_codes_leaves_what_was_known_of_them() -> None:
    before = Seen({"usage.0.counts": torch.ones(4)}, {"codes.used": 1.0, "loss": 3.0})
    after = before.followed_by(Seen({}, {"loss": 2.0}))
    assert after.tensors == before.tensors
    assert after.row == {"codes.used": 1.0, "loss": 2.0}
    assert before.followed_by(Seen({"usage.0.counts": torch.zeros(4)}, {})).row == {}


def test_counts_since_the_last_row() -> None:
    made, usage = quantizer("residual-ema", codebook_size=8, levels=2), Usage()
    assert usage.take(made) == {}
    usage.add(torch.tensor([[[0, 3], [0, -1]]]))
    usage.add(torch.tensor([[[7, 3]]]))
    counts = usage.take(made)
    assert counts["level0"].tolist() == [2, 0, 0, 0, 0, 0, 0, 1]
    assert counts["level1"].tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
    assert usage.take(made) == {}


def test_the_output_against_its_target() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(6, 1, 50, generator=rng)
    y = 0.5 * x + 0.2
    output = Output()
    for a, b in zip(x.split(2), y.split(2), strict=True):
        output.add({"x_hat": b, "target": a}, {})
    measured = output.figures()
    assert measured["range_ratio"] == pytest.approx(0.5, rel=1e-5)
    assert measured["rescale"] == pytest.approx(2, rel=1e-5)
    assert measured["dc"] == pytest.approx(float((y - x).mean() / x.std(correction=0)), rel=1e-4)
    assert measured["output.snr_db"] == pytest.approx(
        float(10 * torch.log10(x.var() / (x - y).square().mean())), abs=0.02
    )
    assert Output().figures() == {}
    assert gap(3.0, 2.0)["soft_hard.gap"] == 0.5
    assert "soft_hard.gap" not in gap(3.0, 0.0)


def test_a_checkpoint_carries_the_counts_of_the_validation_that_chose_it(tmp_path: Path) -> None:
    run = session(write_recipe(tmp_path, prior=True), tmp_path / "run", ["train.valid_every=4", "train.average=0.9"])
    assert run.train() == 0
    read = checkpoint.load(tmp_path / "run" / "tokenizer.safetensors")
    rows = run.data.rows("valid")
    again = counted(run.model.parts.quantizer.eval(), run.model.parts.eval().encoder(rows.columns["x"]), 1000)  # type: ignore[attr-defined]
    for q in range(2):
        assert torch.equal(read.tensors[f"usage.{q}.counts"], again.tensors[f"usage.{q}.counts"])
        assert torch.equal(read.tensors[f"vectors.{q}"], read.tensors[f"parts.quantizer.levels.{q}.codebook.codes"])
    assert read.metadata["validation"]["step"] == read.metadata["metrics"]["best_step"]
    assert read.metadata["quantizer"]["names"] == ["level0", "level1"]
    assert read.metadata["validation"]["codes.perplexity.level0"] > 1
    last = checkpoint.load(tmp_path / "run" / "prior.safetensors")  # the quantizer is frozen there
    assert torch.equal(last.tensors["usage.0.counts"], read.tensors["usage.0.counts"])
    assert HERE.is_main
