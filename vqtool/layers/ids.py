"""Ids, as hashes of words: what encoders of them ask of their data."""

from __future__ import annotations

from torch import Tensor

from vqtool.errors import VqtoolError


def stride_of(kind: str, channels: int, length: int | tuple[int, ...], tokens: int) -> int:
    """The ids per token, of windows of one channel.

    Raises:
        VqtoolError: there are more channels, or `tokens` do not divide the length.
    """
    if channels != 1 or not isinstance(length, int) or length % tokens:
        raise VqtoolError(
            f"the encoder `{kind}` needs one channel of ids, and a length that {tokens} tokens divide",
            hint="change the data's length or encoder.tokens",
        )
    return length // tokens


def ids_of(kind: str, x: Tensor) -> Tensor:
    """The ids [B, L] of windows [B, 1, L]; whole numbers that are stored as floats are ids too.

    Raises:
        VqtoolError: they are samples of a signal, which cut to whole numbers would mean nothing.
    """
    if x.is_floating_point() and bool((x != x.round()).any()):
        raise VqtoolError(
            f"the encoder `{kind}` reads ids, which are whole numbers, and these data are signals",
            hint="data of sentences: labelled-sentences; for signals: conv1d, patch",
        )
    return x[:, 0].long()
