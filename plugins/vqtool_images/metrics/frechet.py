"""A stand-in for the reconstruction FID: Frechet distance of features of a small classifier of the data themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.api import DataSpec, Metric, expect_images
from vqtool_images.levels import pair

SIDE = 32  # larger pictures are averaged down to this
FEATURES = 64
EPOCHS, BATCH, RATE = 4, 128, 2e-3


class Frechet(Metric):
    """`frechet.own`: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of features of the pictures and of the estimates.

    m and S are means and covariances (Heusel et al. 2017, arXiv 1706.08500, equation 6). The features are the 64 of a
    small convolutional classifier that is trained on the labels of the training pictures, from a fixed seed: so this is
    not the FID of the literature, which takes an Inception network, and compares models on the same data only. Without
    labels there is no figure. `frechet.classified` is the classifier's accuracy on the pictures,
    `frechet.classified_hat` that on the estimates.
    """

    learns = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        expect_images(spec.extent, "the metric `frechet`")
        self.known: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.net: nn.Sequential | None = None
        self.features: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.right = torch.zeros(3)  # on pictures, on estimates, and how many there were

    def learn(self, *, x: Tensor, label: Tensor) -> None:
        """`x` [B, C, H, W] and `label` [B] of training pictures."""
        self.known[0].append(self._small(pair(self.spec, x, x)[0]).half())
        self.known[1].append(label.cpu())

    def update(self, *, x: Tensor, x_hat: Tensor, label: Tensor) -> None:
        """`x` and `x_hat` [B, C, H, W], `label` [B]; reads the label for the two accuracies."""
        if not self.known[0]:
            return
        if self.net is None:
            (classes,) = (field.names for field in self.spec.named("label").values())
            self.net = trained(torch.cat(self.known[0]).float(), torch.cat(self.known[1]), len(classes))
        label = label.cpu()
        for number, images in enumerate(pair(self.spec, x, x_hat)):
            features = self.net[:-1](self._small(images))
            self.features[number].append(features.double())
            self.right[number] += (self.net[-1](features).argmax(1) == label).sum()
        self.right[2] += len(label)

    def _small(self, images: Tensor) -> Tensor:
        height, width = (min(side, SIDE) for side in images.shape[2:])
        return F.adaptive_avg_pool2d(images.float(), (height, width))

    def compute(self) -> Mapping[str, float]:
        """The figures named above."""
        if not self.features[0]:
            return {}
        right = self.right / self.right[2]
        distance = frechet(*(torch.cat(each) for each in self.features))
        return {"frechet.own": distance, "frechet.classified": float(right[0]),
                "frechet.classified_hat": float(right[1])}  # fmt: skip


@torch.enable_grad()
def trained(x: Tensor, label: Tensor, classes: int) -> nn.Sequential:
    """A classifier of `x` [N, C, H, W] by `label` [N], -1 where there is none; the same at every call."""
    x, label = x[label >= 0], label[label >= 0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(x.shape[1], 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.LazyLinear(FEATURES), nn.ReLU(), nn.Linear(FEATURES, classes),
        )  # fmt: skip
        net(x[:1])
        optimizer = torch.optim.Adam(net.parameters(), RATE)
        for _ in range(EPOCHS):
            for at in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(net(x[at]), label[at]).backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two sets of features [N, D], as of Gaussians with their means and covariances."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = (torch.cov(v.T, correction=0) for v in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()  # tr (A B)^(1/2) = tr (R B R)^(1/2)
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared
    return max(float(distance), 0.0)
