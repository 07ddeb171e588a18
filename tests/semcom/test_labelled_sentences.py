"""Sentences as hashes, and the encoder that sums their embeddings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtool.errors import VqtoolError
from vqtool.parts.encoders.ngrams import NgramsEncoder
from vqtool.parts.encoders.textcnn import TextCnnEncoder
from vqtool_semcom.data.labelled_sentences import LabelledSentences, hashed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("train", 30), ("dev", 4), ("test", 6)):
        lines = [f"{i % 2} {'good' if i % 2 else 'bad'} film number {i}" for i in range(count)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


def test_rows_of_every_split(folder: Path) -> None:
    data = LabelledSentences(path=folder, length=16)
    assert [len(data.rows(split)) for split in data.splits] == [27, 3, 4, 6]
    batch = data.rows("test").__getitems__([0, 1])
    assert batch["x"].shape == (2, 1, 16)
    assert batch["x"].dtype == torch.long
    assert data.spec.fields["label"].names == ("0", "1")
    assert batch["label"].tolist() == [0, 1]


def test_a_hash_is_a_words_own_for_ever() -> None:
    assert hashed(["good"], 3) == [1820610195, 0, 0]
    words = hashed(["good", "movies"], 16, piece=4)
    assert words[:2] == [*hashed(["good"], 1), *hashed(["movies"], 1)]
    assert words[2:5] == hashed(["<goo", "good", "ood>"], 3)
    assert hashed(["a", "b", "c"], 2) == hashed(["a", "b"], 2)
    assert min(hashed(["x", "y"], 2)) > 0


@pytest.mark.parametrize(("text", "said"), [("1\n", "line 1"), ("", "no sentences"), (None, "cannot read")])
def test_what_cannot_be_read_is_one_error(folder: Path, text: str | None, said: str) -> None:
    (folder / "train.txt").unlink()
    if text is not None:
        (folder / "train.txt").write_text(text)
    with pytest.raises(VqtoolError, match=said):
        LabelledSentences(path=folder)


def test_neither_a_byte_order_mark_nor_a_unicode_line_break_makes_a_class(folder: Path) -> None:
    plain = LabelledSentences(path=folder, length=16)
    for name in ("train", "dev", "test"):
        lines = (folder / f"{name}.txt").read_text().splitlines()
        lines[1] = lines[1].replace(" film", " \u2028 film \x85").replace(" number", " \x0c\u2029number")
        (folder / f"{name}.txt").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    marked = LabelledSentences(path=folder, length=16)
    assert marked.spec == plain.spec
    for split in plain.splits:
        for index in range(len(plain.rows(split))):
            torch.testing.assert_close(marked.rows(split)[index], plain.rows(split)[index])


def _write(folder: Path, **files: list[str]) -> None:
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_lines_of_another_form_are_reported(folder: Path) -> None:
    tabbed = [f"the film is number {i}\t{i % 2}" for i in range(150)]
    _write(folder, train=tabbed, dev=tabbed, test=tabbed)
    with pytest.raises(VqtoolError, match="the one label `the`") as caught:
        LabelledSentences(path=folder)
    assert "`label word word ...`" in (caught.value.hint or "")
    good = [f"{i % 2} a film" for i in range(150)]
    _write(folder, train=[*good[:7], "label sentence", *good], dev=good, test=good)
    assert "train.txt` has the label `label`, which 1 of the 158" in LabelledSentences(path=folder).notes[0]
    _write(folder, train=good, dev=[*good, "", "so it goes on"])
    (note,) = LabelledSentences(path=folder).notes
    assert note.startswith("line 152 of ")
    assert "dev.txt` has the label `so`, which 0 of the 150" in note
    _write(folder, train=[*good, *["rare but thrice"] * 3], dev=[*good, "rare enough"])
    data = LabelledSentences(path=folder)
    assert data.notes == ()
    assert data.spec.fields["label"].names == ("0", "1", "rare")


def test_a_bag_knows_no_order_of_words_but_its_pairs_do() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[[5, 9, 7, 0]], [[9, 5, 7, 0]]])
    singles, pairs = (NgramsEncoder(1, 4, tokens=2, dim=3, longest=n).eval() for n in (1, 2))
    torch.testing.assert_close(singles(x)[0], singles(x)[1])
    assert not torch.allclose(pairs(x)[0], pairs(x)[1])
    assert singles(x).shape == (2, 2, 3)


def test_filters_know_the_order_of_words_but_not_their_place() -> None:
    torch.manual_seed(0)
    x = torch.tensor([[[5, 9, 7, 0, 0]], [[9, 5, 7, 0, 0]], [[0, 0, 5, 9, 7]]])
    for spans in ((1,), (2,), (1, 3)):
        found = TextCnnEncoder(1, 5, tokens=1, dim=6, spans=spans).eval()(x)
        assert found.shape == (3, 1, 6)
        assert torch.allclose(found[0], found[1]) == (spans == (1,))
        torch.testing.assert_close(found[0], found[2])


def test_a_word_that_is_left_out_is_as_if_unknown() -> None:
    encoder = TextCnnEncoder(1, 4, tokens=1, dim=6, leave_out=0.9, dropout=0.0)
    x = torch.tensor([[[5, 9, 7, 3]]]).expand(64, 1, 4)
    torch.manual_seed(0)
    left = len(torch.unique(encoder(x), dim=0))
    assert 1 < left <= 16
    assert len(torch.unique(encoder.eval()(x), dim=0)) == 1


@pytest.mark.parametrize("kind", [partial(NgramsEncoder, longest=3), TextCnnEncoder])
def test_padding_counts_for_nothing(kind: Callable[..., Any]) -> None:
    encoder = kind(1, 8, tokens=2, dim=3).eval()
    x = torch.tensor([[[4, 8, 15, 0, 0, 0, 0, 0]]])
    with torch.no_grad():
        before = encoder(x)
        encoder.table.weight[0] += 100  # where zeros would fall
    torch.testing.assert_close(encoder(x), before)


def test_an_encoder_that_does_not_fit_says_so() -> None:
    for wiring in ((2, 8), (1, (8, 8)), (1, 9)):
        for kind, name in ((NgramsEncoder, "ngrams"), (TextCnnEncoder, "textcnn")):
            with pytest.raises(VqtoolError, match=f"the encoder `{name}` needs one channel of ids"):
                kind(*wiring, tokens=2)


@pytest.mark.parametrize("kind", [NgramsEncoder, TextCnnEncoder])
def test_samples_of_a_signal_are_no_ids(kind: Callable[..., Any]) -> None:
    with pytest.raises(VqtoolError, match="reads ids, which are whole numbers, and these data are signals"):
        kind(1, 8, tokens=2, dim=3)(torch.randn(2, 1, 8))


@pytest.mark.parametrize("kind", [NgramsEncoder, TextCnnEncoder])
def test_ids_may_be_stored_as_floats(kind: Callable[..., Any]) -> None:
    encoder = kind(1, 8, tokens=2, dim=3).eval()
    x = torch.tensor([[[4, 8, 15, 16, 23, 42, 0, 0]]])
    torch.testing.assert_close(encoder(x.float()), encoder(x))
