"""The contracts that parts and plugins are written against, and nothing else."""

from vqtool.api.data import Data, Rows, TensorRows
from vqtool.api.estimator import Estimator
from vqtool.api.files import Arriving, CodedPiece, Files, Piece, Source
from vqtool.api.forecast import Forecast, ForecastFiles, Histories
from vqtool.api.loss import Adversarial, Loss
from vqtool.api.metric import Baseline, Metric
from vqtool.api.nested import Nested
from vqtool.api.options import with_options_of
from vqtool.api.parts import (
    Channel,
    Classifier,
    Condition,
    Conditioner,
    Context,
    Decoder,
    Discriminator,
    Encoder,
    Norm,
    Prior,
    Received,
    Regressor,
    not_streaming,
)
from vqtool.api.quantizer import CodebookStats, Quantized, Quantizer, Route, sum_stats
from vqtool.api.renamed import Renamed
from vqtool.api.schedule import Schedule
from vqtool.api.spec import MASK, Batch, DataSpec, Field, UnfitError, expect_images, expect_windows
from vqtool.api.task import (
    Better,
    Classifies,
    Compares,
    Decodes,
    Embeds,
    Encodes,
    Estimates,
    Forecasts,
    Generates,
    Make,
    Parts,
    QuantileForecaster,
    Task,
    Transmits,
)

__all__ = [
    "MASK",
    "Adversarial",
    "Arriving",
    "Baseline",
    "Batch",
    "Better",
    "Channel",
    "Classifier",
    "Classifies",
    "CodebookStats",
    "CodedPiece",
    "Compares",
    "Condition",
    "Conditioner",
    "Context",
    "Data",
    "DataSpec",
    "Decoder",
    "Decodes",
    "Discriminator",
    "Embeds",
    "Encoder",
    "Encodes",
    "Estimates",
    "Estimator",
    "Field",
    "Files",
    "Forecast",
    "ForecastFiles",
    "Forecasts",
    "Generates",
    "Histories",
    "Loss",
    "Make",
    "Metric",
    "Nested",
    "Norm",
    "Parts",
    "Piece",
    "Prior",
    "QuantileForecaster",
    "Quantized",
    "Quantizer",
    "Received",
    "Regressor",
    "Renamed",
    "Route",
    "Rows",
    "Schedule",
    "Source",
    "Task",
    "TensorRows",
    "Transmits",
    "UnfitError",
    "expect_images",
    "expect_windows",
    "not_streaming",
    "sum_stats",
    "with_options_of",
]
