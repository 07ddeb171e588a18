"""The contracts that parts and plugins are written against, and nothing else."""

from vqtool.api.data import Batch, Data, DataSpec, Field, Rows, TensorRows
from vqtool.api.loss import Loss
from vqtool.api.metric import Baseline, Metric
from vqtool.api.parts import Channel, Condition, Conditioner, Decoder, Encoder, Norm, Prior, Regressor
from vqtool.api.quantizer import CodebookStats, Quantized, Quantizer, sum_stats
from vqtool.api.schedule import Schedule
from vqtool.api.task import Decodes, Encodes, Estimates, Generates, Make, Parts, Task

__all__ = [
    "Baseline",
    "Batch",
    "Channel",
    "CodebookStats",
    "Condition",
    "Conditioner",
    "Data",
    "DataSpec",
    "Decoder",
    "Decodes",
    "Encoder",
    "Encodes",
    "Estimates",
    "Field",
    "Generates",
    "Loss",
    "Make",
    "Metric",
    "Norm",
    "Parts",
    "Prior",
    "Quantized",
    "Quantizer",
    "Regressor",
    "Rows",
    "Schedule",
    "Task",
    "TensorRows",
    "sum_stats",
]
