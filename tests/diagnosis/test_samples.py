"""The pieces shown for a code are pieces of real windows in which that code stands where it is said to stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.diagnosis.conftest import Trained
from tests.diagnosis.handmade import windows_with_codes
from vqtool.commands.diagnose_data import samples as samples_of
from vqtool.diagnosis.samples import EXAMPLES, Picker, thinned, thinned_image
from vqtool.model.data import open_data
from vqtool.model.load import from_checkpoint
from vqtool.training.runtime import Runtime


@pytest.mark.parametrize("tokens", [1, 5, 16, 20, 37])
def test_an_example_is_where_the_code_is(tokens: int) -> None:
    sizes = (7, 30)
    x, codes = windows_with_codes(sizes, 50, tokens, channels=2)
    picker = Picker(sizes)
    picker.add(x[:20], codes[:20])
    picker.add(x[20:], codes[20:])
    for book, examples in enumerate(picker.examples):
        for code in range(sizes[book]):
            there = [e for e in examples[code].tolist() if e[0] >= 0]
            assert len(there) >= min(EXAMPLES, len({row for row, _ in np.argwhere(codes[..., book] == code)}), 1)
            for piece, token in there:
                window, place = divmod(int(picker.pieces[piece][0, 4 * token]), 1000)
                assert codes[window, place // 4, book] == code


def test_a_code_that_no_window_holds_has_no_example() -> None:
    picker = Picker((4,))
    picker.add(np.zeros((3, 1, 8), np.float32), np.zeros((3, 2, 1), np.int64))
    assert (picker.examples[0][1:] == -1).all()
    assert (picker.examples[0][0, 0] == (0, 0)).all()


def test_rare_codes_get_the_room_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten codes with four windows each, then eight with one: with room for 30 pieces all are shown."""
    monkeypatch.setattr("vqtool.diagnosis.samples.MOST_NUMBERS", 30 * 8)
    picker = Picker((18,))
    codes = np.array([*np.arange(10).repeat(EXAMPLES), *range(10, 18)])[:, None, None]
    picker.add(np.zeros((len(codes), 1, 8), np.float32), codes)
    assert (picker.examples[0][:, 0, 0] >= 0).all()
    assert len(picker.pieces) <= 30


def test_a_thinned_signal_keeps_its_envelope() -> None:
    x = np.zeros((1, 10_000))
    x[0, 4321], x[0, 777] = 5.0, -3.0
    small = thinned(x, 96)
    assert small.shape == (1, 96)
    assert small.max() == 5.0
    assert small.min() == -3.0
    assert thinned_image(np.zeros((3, 100, 20))).shape == (3, 32, 20)


def test_a_thinned_slope_stays_a_slope() -> None:
    """The lowest and the highest in the order they come: a falling line has no teeth."""
    falling = np.linspace(5, -5, 1000)[None]
    assert (np.diff(thinned(falling, 96)) < 0).all()
    assert (np.diff(thinned(-falling, 96)) > 0).all()


def test_images_are_taken_in_full() -> None:
    picker = Picker((4,))
    picker.add(np.random.default_rng(0).normal(size=(5, 3, 16, 16)), np.arange(20).reshape(5, 4, 1) % 4)
    assert picker.pieces[0].shape == (3, 16, 16)
    assert picker.piece_tokens == 4


def test_pieces_of_a_trained_run(trained: Trained) -> None:
    """What a checkpoint's own encoder says of the pieces' windows is what the page will say of them."""
    model, _ = from_checkpoint(trained("half-dead") / "tokenizer.safetensors")
    rows = open_data(model.recipe).rows("valid")
    model.parts.eval()
    samples = samples_of(model, rows, "valid", Runtime(torch.device("cpu")))
    assert samples is not None
    x = rows.__getitems__(list(range(len(rows))))["x"]
    with torch.no_grad():
        codes = model.parts.quantizer(model.parts.encoder(x)).codes.numpy()
    windows = {window.tobytes(): number for number, window in enumerate(x.numpy())}
    for code, examples in enumerate(samples.examples[0]):
        assert (code % 2 == 1) == all(piece < 0 for piece, _ in examples)  # every second one is dead
        for piece, token in examples:
            assert piece < 0 or codes[windows[samples.pieces[piece].tobytes()], token, 0] == code
    assert samples.reconstructions is not None
    assert np.mean((samples.reconstructions - samples.originals) ** 2) < 0.2
