"""K-means on log-spectrograms: as many codes as a learned codebook may have, without any learning of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from annotated_doc import Doc
from annotated_types import Ge

from vqtool.api import Baseline, Batch, DataSpec, Rows
from vqtool.errors import missing_extra
from vqtool_seismic.spectra import frame_of, log_spectra, training_spectra


class Kmeans(Baseline):
    """Each frame's log-spectrum, standardised, by its nearest of `codes` centres; scikit-learn's mini-batch k-means."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        codes: Annotated[int, Ge(2), Doc("how many centres")] = 640,
        seed: Annotated[int, Doc("of the start")] = 0,
    ) -> None:
        super().__init__(spec)
        self.codes, self.seed, self.frame = codes, seed, frame_of(spec)

    def fit(self, rows: Rows) -> None:
        """Centres from the training rows' frames that have a phase: they are what is scored, which helps this baseline.

        Raises VqtoolError where scikit-learn is not installed.
        """
        try:
            from sklearn.cluster import MiniBatchKMeans
        except ImportError as fault:
            raise missing_extra("scikit-learn", "seismic", "baseline `kmeans`") from fault
        spectra = training_spectra(rows, self.frame).numpy()
        self.mean, self.scale = spectra.mean(0), np.maximum(spectra.std(0), 1e-6)
        codes = min(self.codes, len(spectra))
        model = MiniBatchKMeans(codes, random_state=self.seed, n_init=1, batch_size=4096)
        self.model = model.fit((spectra - self.mean) / self.scale)

    def predict(self, batch: Batch) -> Mapping[str, Any]:
        """`codes` [B, T, 1] and `codebook_sizes`."""
        spectra = log_spectra(batch["x"].cpu(), self.frame)
        flat = (spectra.flatten(0, 1).numpy() - self.mean) / self.scale
        codes = torch.from_numpy(self.model.predict(flat)).long().view(*spectra.shape[:2], 1)
        return {"codes": codes, "codebook_sizes": (self.model.n_clusters,)}
