"""The contracts that parts and plugins are written against, and nothing else."""

from vqtool.api.data import Batch, Coded, Data, DataSpec, Field, Rows, TensorRows
from vqtool.api.estimator import Estimator
from vqtool.api.forecast import Continues, Forecast, Histories
from vqtool.api.loss import Loss
from vqtool.api.metric import Baseline, Metric
from vqtool.api.nested import Nested
from vqtool.api.parts import (
    Channel,
    Classifier,
    Condition,
    Conditioner,
    Context,
    Decoder,
    Encoder,
    Norm,
    Prior,
    Received,
    Regressor,
)
from vqtool.api.quantizer import CodebookStats, Quantized, Quantizer, Route, sum_stats
from vqtool.api.schedule import Schedule
from vqtool.api.task import (
    Classifies,
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
)

__all__ = [
    "Baseline",
    "Batch",
    "Channel",
    "Classifier",
    "Classifies",
    "CodebookStats",
    "Coded",
    "Condition",
    "Conditioner",
    "Context",
    "Continues",
    "Data",
    "DataSpec",
    "Decoder",
    "Decodes",
    "Embeds",
    "Encoder",
    "Encodes",
    "Estimates",
    "Estimator",
    "Field",
    "Forecast",
    "Forecasts",
    "Generates",
    "Histories",
    "Loss",
    "Make",
    "Metric",
    "Nested",
    "Norm",
    "Parts",
    "Prior",
    "QuantileForecaster",
    "Quantized",
    "Quantizer",
    "Received",
    "Regressor",
    "Route",
    "Rows",
    "Schedule",
    "Task",
    "TensorRows",
    "sum_stats",
]
