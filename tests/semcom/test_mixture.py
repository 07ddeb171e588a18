"""A mixture of codebooks over a link of several constellations: routes, rates, and who learns from what."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from tests.cli.run import document, vqtool
from tests.semcom.test_classify import RECIPE
from vqtool.api import Quantized, Received
from vqtool.errors import VqtoolError
from vqtool.sequence.link import code_tables
from vqtool_semcom.channels.awgn import Awgn
from vqtool_semcom.channels.bsc import Bsc
from vqtool_semcom.channels.rayleigh import Rayleigh
from vqtool_semcom.losses.expected_symbols import ExpectedSymbols
from vqtool_semcom.metrics.received import wrong
from vqtool_semcom.metrics.route import RouteShares
from vqtool_semcom.mode_router import expected_symbols
from vqtool_semcom.quantizers.mixture_ema import MixtureEMA

SIZES, ORDERS = (5, 16, 100), (4, 16, 64)
TOKENS = 7  # odd: 21, 28 and 49 bits fill no whole number of 16- or 64-QAM symbols


def started(rows: int = 40, seed: int = 0) -> tuple[MixtureEMA, Tensor]:
    """A mixture, and windows that take every route."""
    torch.manual_seed(seed)
    quantizer = MixtureEMA(6, codebook_sizes=SIZES, modes=3)
    quantizer.initialise(torch.randn(60, TOKENS, 6))
    return quantizer, torch.randn(rows, TOKENS, 6)


def sent(rows: int = 40) -> tuple[Quantized, tuple[Tensor, ...]]:
    quantizer, z = started(rows)
    return quantizer.eval()(z), code_tables(quantizer)


def test_a_window_takes_the_nearest_codes_of_its_likeliest_expert() -> None:
    quantizer, z = started()
    for train in (True, False):
        q = quantizer.train(train)(z)
        assert q.route is not None
        assert torch.equal(q.route.expert, q.route.expert_probs.argmax(1))
        assert len(q.route.expert.unique()) == len(q.route.mode.unique()) == 3
        for row, expert in enumerate(q.route.expert.tolist()):
            table = quantizer.vectors()[expert]
            nearest = torch.cdist(z[row], table).argmin(1)
            assert torch.equal(q.codes[row, :, expert], nearest)
            assert int((q.codes[row] >= 0).sum()) == TOKENS
            torch.testing.assert_close(q.z[row], table[nearest], atol=0, rtol=0)


@pytest.mark.parametrize("kind", [Awgn, Rayleigh])
def test_a_route_is_the_plain_link_of_its_codebook_and_order(kind: type) -> None:
    """Same noise, same labels: what a window receives is what a channel of that one codebook and order would give."""
    q, tables = sent(80)
    channel = kind(SIZES, order=ORDERS, report_db=()).eval()
    channel.prepare(tables)
    noise = channel.draw(q)
    got = channel(q, tables, level=7.0, noise=noise)
    seen = set()
    for row in range(len(q.codes)):
        expert, mode = int(q.route.expert[row]), int(q.route.mode[row])
        plain = kind((SIZES[expert],), order=ORDERS[mode], report_db=()).eval()
        plain.books[0].labels.copy_(channel.books[expert].labels)
        one = Quantized(z=q.z[row, None], codes=q.codes[row, None, :, expert, None], hard=q.hard[row, None])
        symbols = plain.symbols_of(plain.bits_of(one))
        wanted = plain(one, (tables[expert],), level=7.0, noise=tuple(n[row, None, :symbols] for n in noise))
        torch.testing.assert_close(got.hard[row], wanted.hard[0])
        assert torch.equal(got.codes[row, :, expert], wanted.codes[0, :, 0])
        for figure in ("ber", "ber.theory", "llr.ratio", "tx_power"):
            torch.testing.assert_close(got.figures[figure][row], wanted.figures[figure][0])
        assert float(got.figures["symbols"][row]) == symbols + 4  # 9 routes: 4 bits, one a symbol
        seen.add((expert, mode))
    assert len(seen) == 9


def test_without_noise_every_bit_of_every_route_arrives() -> None:
    q, tables = sent(200)
    received = Awgn(SIZES, order=ORDERS).eval()(q, tables, level=90.0)
    assert float(received.figures["ber"].max()) == 0
    assert torch.equal(received.codes, q.codes)
    torch.testing.assert_close(received.hard, q.hard, atol=1e-4, rtol=1e-4)


def test_every_route_errs_as_theory_says() -> None:
    q, tables = sent(6000)
    figures = Awgn(SIZES, order=ORDERS).eval()(q, tables, level=6.0).figures
    for mode in range(3):
        mine = q.route.mode == mode
        assert float(figures["ber"][mine].mean()) == pytest.approx(float(figures["ber.theory"][mine][0]), rel=0.05)
    assert len(figures["ber.theory"].unique()) == 3


# --- the laws of the rate loss ---------------------------------------------------------------------------------------

Rate = Callable[..., Tensor]
WIDTHS, SYMBOL_BITS = (3, 4, 7), (2, 4, 6)


def routes(rows: int = 5, *, certain: tuple[int, int] | None = None) -> Quantized:
    quantizer, z = started(rows)
    q = quantizer.train()(z)
    if certain is None:
        return q
    expert, mode = (torch.eye(3)[at].expand(rows, 3) for at in certain)
    return replace(q, route=replace(q.route, expert_probs=expert, mode_probs=mode))


def certain_routes_cost_their_symbols(rate: Rate) -> bool:
    return all(
        torch.allclose(rate(routes(certain=(r, m)).route, 12, WIDTHS, SYMBOL_BITS), torch.tensor(12.0 * k / bits))
        for r, k in enumerate(WIDTHS)
        for m, bits in enumerate(SYMBOL_BITS)
    )


def is_the_double_sum(rate: Rate) -> bool:
    route = routes().route
    experts, modes = route.expert_probs.detach(), route.mode_probs.detach()
    wanted = [
        sum(
            float(experts[b, r]) * float(modes[b, m]) * 12 * WIDTHS[r] / SYMBOL_BITS[m]
            for r in range(3)
            for m in range(3)
        )
        for b in range(5)
    ]
    return torch.allclose(rate(route, 12, WIDTHS, SYMBOL_BITS), torch.tensor(wanted))


def tells_expert_and_mode_to_cost_less(rate: Rate) -> bool:
    """Descent moves probability to the smallest codebook and to the largest constellation."""
    route = routes().route
    value = rate(route, 12, WIDTHS, SYMBOL_BITS).sum()
    if not value.requires_grad:
        return False
    slopes = torch.autograd.grad(value, (route.expert_probs, route.mode_probs), allow_unused=True)
    if any(slope is None for slope in slopes):
        return False
    by_expert, by_mode = slopes
    return bool((by_expert.argmin(1) == 0).all() and (by_mode.argmin(1) == 2).all())


RATE_LAWS = (certain_routes_cost_their_symbols, is_the_double_sum, tells_expert_and_mode_to_cost_less)


def of_the_choice(route, tokens: int, widths: Sequence[int], symbol_bits: Sequence[int]) -> Tensor:
    """What the routes do cost, with the gradient of the expectation: right where the router is certain."""
    expected = expected_symbols(route, tokens, widths, symbol_bits)
    chosen = (
        tokens
        * torch.tensor(widths)[route.expert_probs.argmax(1)]
        / torch.tensor(symbol_bits)[route.mode_probs.argmax(1)]
    )
    return chosen + expected - expected.detach()


def without_gradient(*arguments) -> Tensor:
    return expected_symbols(*arguments).detach()


def modes_as_they_are(route, tokens: int, widths: Sequence[int], symbol_bits: Sequence[int]) -> Tensor:
    """The right value, but the modes are taken as given: nobody learns them."""
    return expected_symbols(replace(route, mode_probs=route.mode_probs.detach()), tokens, widths, symbol_bits)


def bits_over_bits(route, tokens: int, widths: Sequence[int], symbol_bits: Sequence[int]) -> Tensor:
    """The mean bits over the mean bits a symbol: a ratio of means is no mean of ratios."""
    bits = route.expert_probs @ torch.tensor([float(tokens * k) for k in widths])
    return bits / (route.mode_probs @ torch.tensor([float(m) for m in symbol_bits]))


def of_the_codes(route, tokens: int, widths: Sequence[int], symbol_bits: Sequence[int]) -> Tensor:
    """K in place of log2 K."""
    return expected_symbols(route, tokens, [2**k for k in widths], symbol_bits)


RATE_MUTANTS = {
    of_the_choice: {"is_the_double_sum"},
    bits_over_bits: {"is_the_double_sum"},
    of_the_codes: {"certain_routes_cost_their_symbols", "is_the_double_sum"},
    without_gradient: {"tells_expert_and_mode_to_cost_less"},
    modes_as_they_are: {"tells_expert_and_mode_to_cost_less"},
}


@pytest.mark.parametrize("law", RATE_LAWS, ids=lambda law: law.__name__)
def test_law_of_the_rate(law: Callable[[Rate], bool]) -> None:
    assert law(expected_symbols)


@pytest.mark.parametrize("mutant", RATE_MUTANTS, ids=lambda m: m.__name__)
def test_a_mutant_of_the_rate_is_caught_by_the_laws_that_name_it(mutant: Rate) -> None:
    assert {law.__name__ for law in RATE_LAWS if not law(mutant)} == RATE_MUTANTS[mutant]


# --- who learns from what --------------------------------------------------------------------------------------------


def test_experts_and_modes_learn_and_the_latents_get_the_identity() -> None:
    quantizer, z = started()
    z.requires_grad_()
    channel = Awgn(SIZES, order=ORDERS).train()
    upstream = torch.randn(z.shape)
    received = channel(quantizer.train()(z), code_tables(quantizer))
    (received.z * upstream).sum().backward()
    assert torch.equal(z.grad, upstream)
    slope = quantizer.router.logits.weight.grad  # 3 experts, then 3 modes
    assert float(slope[:3].abs().max()) > 0
    assert float(slope[3:].abs().max()) > 0
    quantizer.zero_grad()
    received = channel(quantizer(z.detach()), code_tables(quantizer))
    received.figures["symbols.expected"].sum().backward()
    assert float(quantizer.router.logits.bias.grad[2]) > 0  # the largest codebook
    assert float(quantizer.router.logits.bias.grad[3]) > 0  # the smallest constellation


def test_the_router_learns_the_way_that_serves() -> None:
    """Where only one codebook holds the latents, and only the smallest constellation brings them, both are found."""
    torch.manual_seed(0)
    quantizer = MixtureEMA(4, codebook_sizes=(2, 64), modes=2, revive_below=0.0)
    quantizer.initialise(torch.randn(200, 8, 4))
    channel = Awgn((2, 64), order=(4, 256), train_db=(8.0, 8.0)).train()
    optimizer = torch.optim.Adam(quantizer.router.parameters(), lr=0.02)
    for _ in range(60):
        z = torch.randn(64, 8, 4)
        received = channel(quantizer.train()(z), code_tables(quantizer))
        optimizer.zero_grad()
        (received.z - z).square().mean().backward()
        optimizer.step()
    route = quantizer(torch.randn(200, 8, 4)).route
    assert float((route.expert == 1).float().mean()) > 0.95
    assert float((route.mode == 0).float().mean()) > 0.95


# --- errors, metrics, the whole run ----------------------------------------------------------------------------------


def test_a_channel_that_chooses_and_a_quantizer_that_does_not_are_distinguished() -> None:
    q, tables = sent(4)
    with pytest.raises(VqtoolError, match="1 modes, and the quantizer chooses among 3"):
        Awgn(SIZES, order=16).eval()(q, tables)
    plain = Quantized(z=q.z, codes=q.codes[..., :1].clamp_min(0), hard=q.hard)
    with pytest.raises(VqtoolError, match="3 modes"):
        Awgn(SIZES[:1], order=ORDERS).eval()(plain, tables[:1])
    with pytest.raises(VqtoolError, match="does not route"):
        ExpectedSymbols(None)(received=Received(q.z, q.hard, q.codes))


def test_flips_reach_the_chosen_codebook_alone() -> None:
    torch.manual_seed(0)
    quantizer = MixtureEMA(6, codebook_sizes=SIZES)
    quantizer.initialise(torch.randn(60, TOKENS, 6))
    q = quantizer.eval()(torch.randn(500, TOKENS, 6))
    figures = Bsc(SIZES, flip=0.1).eval()(q, code_tables(quantizer)).figures
    assert float(figures["ber"].mean()) == pytest.approx(0.1, abs=0.01)
    widths = torch.tensor([3, 4, 7])[q.route.expert]
    assert torch.equal(figures["symbols"], (TOKENS * widths + 2).float())  # 3 routes: 2 bits


def test_codes_that_are_none_are_not_token_errors() -> None:
    codes = torch.tensor([[[3, -1], [4, -1]], [[-1, 1], [-1, 2]]])
    got = torch.tensor([[[3, -1], [5, -1]], [[-1, 1], [-1, 2]]])
    assert wrong(got, codes).tolist() == [0.5, 0.0]


def test_shares_of_the_routes() -> None:
    quantizer, z = started(50)
    metric = RouteShares(None)
    whole = quantizer(z).route
    for part in z.split([20, 30]):
        metric.update(route=quantizer(part).route)
    measured = metric.compute()
    assert measured["route.expert1"] == pytest.approx(float((whole.expert == 1).float().mean()))
    assert sum(measured[f"route.mode{m}"] for m in range(3)) == pytest.approx(1)
    assert measured["route.certainty"] == pytest.approx(float(whole.expert_probs.max(1).values.mean().detach()))


@pytest.fixture
def recipe(pictures: Callable[..., Path]) -> Path:
    path = pictures().parent / "mixture.toml"
    path.write_text(mixture())
    return path


def mixture() -> str:
    """The recipe of a mixture of two codebooks and two orders."""
    text = RECIPE.replace('"soft-ema"\ncodebook_size = 20', '"mixture-ema"\ncodebook_sizes = [4, 20]\nmodes = 2')
    text = text.replace('kind = "awgn"', 'kind = "awgn"\norder = [4, 16]').replace('baselines = ["pixels"]', "")
    at = text.index(", alignment")
    return text[:at] + ", balance = 0.02, expected-symbols = 0.002 }\n"


def test_a_short_run_learns_routes_and_is_deployed(recipe: Path, tmp_path: Path) -> None:
    result = document("train", recipe, "-o", tmp_path / "run")["splits"]["test"]["model"]
    assert result["accuracy.hard.12db"] > 0.8  # four classes
    shares = [result["route.expert0"], result["route.expert1"]]
    assert sum(shares) == pytest.approx(1)
    assert result["side_bits"] == 2
    assert 2 + 4 * 2 / 4 <= result["symbols"] <= 2 + 4 * 5 / 2  # 4 tokens of 2 or 5 bits, 2 or 4 bits a symbol
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all("expected-symbols" in row and row["balance"] >= 0.5 for row in rows if row["split"] == "train")
    swept = document("evaluate", tmp_path / "run", "--sweep", "channel.snr_db=-6:12:18", "-s", "channel.kind=rayleigh")
    low, high = swept["sweep"]["points"]
    assert low["model"]["accuracy.hard"] < high["model"]["accuracy.hard"]


def test_a_checkpoint_of_the_time_when_routed_had_modes_loads(recipe: Path, tmp_path: Path) -> None:
    experts = 'kind = "routed-modes"\nof = [{ kind = "vq", codebook_size = 4 }, { kind = "vq", codebook_size = 20 }]'
    recipe.write_text(recipe.read_text().replace('kind = "mixture-ema"\ncodebook_sizes = [4, 20]', experts))
    now = document("train", recipe, "-o", tmp_path / "run", "-s", "stage.link.steps=3")["splits"]["test"]["model"]
    with safe_open(tmp_path / "run" / "link.safetensors", "numpy") as file:
        metadata = {key: value.replace("routed-modes", "routed") for key, value in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    old = tmp_path / "old.safetensors"
    save_file(tensors, old, metadata)
    assert "routed-modes" not in str(metadata)
    assert document("evaluate", old, "--data", recipe.parent / "pictures.npz")["splits"]["test"]["model"] == now


def test_the_separate_scheme_needs_one_constellation(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace("[evaluate]", '[evaluate]\nbaselines = ["pixels"]'))
    done = vqtool("train", recipe, "-o", tmp_path / "run", "-s", "stage.link.steps=2")
    assert done.returncode != 0
    assert "a channel with one mode" in done.stderr
    assert "Traceback" not in done.stderr
