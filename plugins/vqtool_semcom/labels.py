"""Which bits name which code: labels for which a flipped bit leads to a near code."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Labelling = Literal["identity", "pca-gray", "pseudo-gray"]
TRIES = 2048  # codes that are tried in total


@torch.no_grad()
def label_table(labelling: Labelling, vectors: Tensor) -> Tensor:
    """A label for each of the codes `vectors` [K, D]: K different numbers [K] in [0, K).

    identity: the code's own number. pca-gray: codes sorted along their first principal axis take the labels in the
    order of a Gray code, so that neighbours differ in few bits. pseudo-gray: that, improved by switching pairs of
    labels as long as the mean squared distance between codes whose labels differ in one bit falls (Zeger and Gersho
    1990, IEEE Trans. Commun. 38(12)).
    """
    if labelling == "identity":
        return torch.arange(len(vectors), device=vectors.device)
    vectors = vectors.double()
    labels = _pca_gray(vectors)
    return labels if labelling == "pca-gray" else _switched(labels, vectors)


def _pca_gray(vectors: Tensor) -> Tensor:
    size = len(vectors)
    centred = vectors - vectors.mean(0)
    axis = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    axis = axis * torch.sign(axis[axis.abs().argmax()])  # the sign of a singular vector is arbitrary
    rank = (centred @ axis).argsort(stable=True).argsort(stable=True)
    gray = torch.arange(2 * size, device=vectors.device)
    gray = gray ^ (gray >> 1)
    return gray[gray < size][:size][rank]  # where K is not a power of two, labels beyond K are left out


def _switched(labels: Tensor, vectors: Tensor) -> Tensor:
    """Each code in turn switches its label with the code where that helps most, until no switch helps.

    A round costs about K^2 log K; of large codebooks there are fewer.
    """
    labels = labels.clone()
    distance = torch.cdist(vectors, vectors).square()
    size = len(vectors)
    bits = 2 ** torch.arange((size - 1).bit_length(), device=labels.device)
    for _ in range(max(1, TRIES // size)):
        switched = False
        owner = labels.argsort()  # the code of a label
        for code in range(size):
            change = _change(code, labels, owner, distance, bits)
            other = int(change.argmin())
            if float(change[other]) < -1e-9 * float(distance.mean()):
                labels[[code, other]] = labels[[other, code]]
                owner[labels[[code, other]]] = torch.tensor([code, other], device=labels.device)
                switched = True
        if not switched:
            break
    return labels


def _change(code: int, labels: Tensor, owner: Tensor, distance: Tensor, bits: Tensor) -> Tensor:
    """By how much the cost changes where `code` switches its label with each of the K codes."""
    size = len(labels)
    flipped = labels[:, None] ^ bits  # [K, k]
    there = flipped < size
    near = owner[flipped.clamp_max(size - 1)]  # the code beside each label, in each bit
    own = near[code][there[code]]  # the neighbours that `code` leaves
    every = torch.arange(size, device=labels.device)

    def cost(of: Tensor, beside: Tensor, real: Tensor) -> Tensor:
        return (distance[of[:, None], beside] * real).sum(1)

    here = code * torch.ones_like(every)
    before = cost(every, near, there) + distance[code, own].sum()
    # Where the two are neighbours themselves they stay so: their common edge is left out of what moves.
    moved = cost(here, near, there & (near != code)) + cost(
        every, own.expand(size, -1), own.expand(size, -1) != every[:, None]
    )
    beside = (there & (near == code)).any(1)
    change = moved + 2 * beside * distance[code] - before
    change[code] = 0
    return change
