"""The convolutional code against a shift register, all words written out, Sionna and published error rates."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtool_semcom.convolutional import KEPT, MEMORY, TAPS, Convolutional, places
from vqtool_semcom.qam import Qam

SIONNA = json.loads((Path(__file__).parent / "sionna_channels.json").read_text())  # "how" each was made stands in it
RATES = tuple(KEPT)


def all_words(bits: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)))


def in_order(coded: Tensor, code: Convolutional, bits: int) -> Tensor:
    """Coded bits as the trellis has them, before any is left out; NaN where one is."""
    whole = torch.full((len(coded), 2 * (bits + MEMORY)), torch.nan)
    whole[:, places(code.rate, bits)] = coded
    return whole


# --- laws, which the mutants below have to break -----------------------------------------------------------------


def is_a_shift_register(code: Convolutional) -> bool:
    """Bit by bit through seven cells, both sums of the cells that the octal generators name, and six zeros to end."""
    words = torch.randint(0, 2, (20, 11), generator=torch.Generator().manual_seed(0))
    coded = in_order(code.encode(words.float()), code, 11)
    for word, got in zip(words.tolist(), coded, strict=True):
        cells, out = [0] * 7, []
        for bit in [*word, *[0] * 6]:
            cells = [bit, *cells[:-1]]
            out += [sum(c for c, tap in zip(cells, f"{taps:07b}", strict=True) if tap == "1") % 2 for taps in TAPS]
        sent = ~got.isnan()
        if not torch.equal(got[sent], torch.tensor(out).float()[sent]):
            return False
    return True


def decodes_as_bayes_says(code: Convolutional) -> bool:
    """P(bit | all LLRs) by summing over every word of 8 bits."""
    words = all_words(8)
    coded = code.encode(words)
    llr = 2 * torch.randn(30, coded.shape[1], generator=torch.Generator().manual_seed(1))
    score = llr @ coded.T  # log P(LLRs | word) + const
    one = words.bool()
    wanted = [score[:, one[:, bit]].logsumexp(1) - score[:, ~one[:, bit]].logsumexp(1) for bit in range(words.shape[1])]
    return torch.allclose(code.decode(llr, 8), torch.stack(wanted, 1), atol=1e-4, rtol=1e-4)


def finds_the_likeliest_word(code: Convolutional) -> bool:
    """Where LLRs are large one word is left, the likeliest of all; some bits of it arrived wrong."""
    words = all_words(9)
    coded = code.encode(words)
    sent = coded[::7]
    noise = torch.randn(sent.shape, generator=torch.Generator().manual_seed(2))
    llr = 40 * (2 * sent - 1 + 0.8 * noise)
    likeliest = words[(llr @ coded.T).argmax(1)]
    return bool(((llr > 0) != (sent > 0.5)).any()) and torch.equal(code.decode(llr, 9) > 0, likeliest > 0.5)


LAWS = (is_a_shift_register, decodes_as_bayes_says, finds_the_likeliest_word)


class NoEnd(Convolutional):
    """The decoder does not know that the window ends with zeros."""

    def decode(self, llr: Tensor, bits: int) -> Tensor:
        sent = places(self.rate, bits)
        longer, more = places(self.rate, bits + MEMORY), llr.new_zeros(len(llr), 2 * (bits + 2 * MEMORY))
        more[:, sent] = llr
        return super().decode(more[:, longer], bits + MEMORY)[:, :bits]


class BackwardTaps(Convolutional):
    """The oldest bit taken for the newest."""

    def encode(self, bits: Tensor) -> Tensor:
        whole = in_order(super().encode(bits.flip(1)), self, bits.shape[1]).unflatten(1, (-1, 2)).flip(1).flatten(1)
        return whole[:, torch.tensor(places(self.rate, bits.shape[1]))]


class OtherSign(Convolutional):
    """log P(0) / P(1) in place of log P(1) / P(0)."""

    def decode(self, llr: Tensor, bits: int) -> Tensor:
        return super().decode(-llr, bits)


class Extrinsic(Convolutional):
    """Each bit's LLR is halved: what a factor 2 in the noise does."""

    def decode(self, llr: Tensor, bits: int) -> Tensor:
        return super().decode(llr / 2, bits)


class Shuffled(Convolutional):
    """The decoder reads the bits in the order of the trellis, not in the order sent."""

    def decode(self, llr: Tensor, bits: int) -> Tensor:
        return super().decode(llr[:, torch.tensor(places(self.rate, bits)).argsort().argsort()], bits)


MUTANTS = {
    NoEnd: {"decodes_as_bayes_says"},
    BackwardTaps: {law.__name__ for law in LAWS},
    OtherSign: {"decodes_as_bayes_says", "finds_the_likeliest_word"},
    Extrinsic: {"decodes_as_bayes_says"},
    Shuffled: {"decodes_as_bayes_says", "finds_the_likeliest_word"},
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[Convolutional], bool], rate: str) -> None:
    assert law(Convolutional(rate))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_is_caught(mutant: type[Convolutional]) -> None:
    assert {law.__name__ for law in LAWS if not law(mutant())} >= MUTANTS[mutant]


# --- sizes and soft bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_as_many_coded_bits_as_the_rate_says(rate: str) -> None:
    code = Convolutional(rate)
    over, under = map(int, rate.split("/"))
    for bits in (1, 12, 58, 60, 128):
        assert code.coded(bits) == code.encode(torch.zeros(1, bits)).shape[1]
        assert 0 <= code.coded(bits) - (bits + 6) * under / over < 2
    for room in (20, 64, 128):
        assert code.coded(code.carried(room)) <= room < code.coded(code.carried(room) + 1)
    assert code.carried(7) == 0


def test_neighbours_are_sent_apart() -> None:
    """Of 31 or 32 symbols of 4 bits, no two of six coded bits in a row share one."""
    for bits in (56, 58):
        place = torch.tensor(places("1/2", bits)).argsort()
        for lag in range(1, 6):
            assert int((place[lag:] - place[:-lag]).abs().min()) >= 4


def test_of_probabilities_the_mean_over_all_words_is_coded() -> None:
    code = Convolutional()
    p = torch.rand(6, generator=torch.Generator().manual_seed(0))
    words = all_words(6)
    weight = torch.where(words > 0.5, p, 1 - p).prod(1)
    torch.testing.assert_close(code.encode(p[None])[0], weight @ code.encode(words))


def test_llrs_beyond_all_doubt_and_none_at_all() -> None:
    code = Convolutional()
    bits = torch.randint(0, 2, (4, 40), generator=torch.Generator().manual_seed(0)).float()
    sure = torch.inf * (2 * code.encode(bits) - 1)
    assert torch.equal(code.decode(sure, 40) > 0, bits > 0.5)
    nothing = code.decode(torch.zeros(1, code.coded(40)), 40)
    torch.testing.assert_close(nothing, torch.zeros(1, 40), atol=1e-4, rtol=0)


class Decoder(torch.nn.Module):
    """Of six bits."""

    code = Convolutional("3/4")

    def forward(self, llr: Tensor) -> Tensor:
        return self.code.decode(llr, 6)


def test_the_decoder_is_onnx_for_any_number_of_rows() -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    decoder = Decoder()
    llr = torch.randn(7, decoder.code.coded(6), generator=torch.Generator().manual_seed(0))
    program = torch.export.export(decoder, (llr[:4],), dynamic_shapes=({0: torch.export.Dim("rows")},))
    session = runtime.InferenceSession(torch.onnx.export(program, dynamo=True).model_proto.SerializeToString())
    (got,) = session.run(None, {session.get_inputs()[0].name: llr.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), decoder(llr), atol=1e-4, rtol=1e-4)


# --- others' figures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", SIONNA["convolutional"]["words"], ids=lambda row: f"{len(row['bits'])} bits")
def test_words_and_decoded_llrs_are_sionnas(row: dict) -> None:
    code, bits = Convolutional(), torch.tensor([row["bits"]]).float()
    assert in_order(code.encode(bits), code, bits.shape[1])[0].tolist() == row["coded"]
    llr = torch.tensor([row["arrived"]])[:, places(code.rate, bits.shape[1])]
    torch.testing.assert_close(code.decode(llr, bits.shape[1])[0], torch.tensor(row["decoded"]), atol=1e-4, rtol=1e-4)


def error_rate(ebno_db: float, rows: int, bits: int = 500) -> float:
    """Of 4-QAM at rate 1/2, where Es/N0 = Eb/N0, over white noise."""
    torch.manual_seed(0)
    code, qam, n0 = Convolutional(), Qam(4), torch.tensor(10 ** (-ebno_db / 10))
    sent = torch.randint(0, 2, (rows, bits)).float()
    symbols = qam.symbols(code.encode(sent))
    llr = qam.llr(symbols + (n0 / 2).sqrt() * torch.randn_like(symbols), n0)
    return float(((code.decode(llr, bits) > 0) != (sent > 0.5)).double().mean())


SPECTRUM = {10: 36, 12: 211, 14: 1404, 16: 11633, 18: 77433}  # wrong bits on paths by distance (Proakis)


def union_bound(ebno_db: float) -> float:
    """Of a Viterbi decoder, from the number of wrong bits on all paths of the least distances, d Eb/N0 apart."""
    snr = 10 ** (ebno_db / 10)
    return sum(count * 0.5 * math.erfc(math.sqrt(distance / 2 * snr)) for distance, count in SPECTRUM.items())


def test_the_bound_is_the_one_that_is_published() -> None:
    """1e-5 at 4.2 dB: what this code is known for."""
    assert union_bound(4.2) == pytest.approx(1e-5, rel=0.15)


@pytest.mark.parametrize("row", SIONNA["error_rates"]["rows"], ids=lambda row: f"{row['ebno_db']:g}dB")
def test_error_rates_are_those_of_sionna_and_of_the_bound(row: dict) -> None:
    """Errors come in bursts of about 8 bits, so a count c has a spread of sqrt(8 c)."""
    rows = 400 if row["ebno_db"] < 2.5 else 1600
    got = error_rate(row["ebno_db"], rows=rows)
    reference = row["wrong"]["bcjr"] / row["bits"]
    spread = math.sqrt(8 * reference / (rows * 500)) + math.sqrt(8 * reference / row["bits"])
    assert got == pytest.approx(reference, abs=4 * spread)
    if row["ebno_db"] > 2.5:
        assert 0.2 * union_bound(row["ebno_db"]) < got < union_bound(row["ebno_db"])
