"""Names of the formats in which an engine may hold its copy of the weights."""

from typing import Literal

WeightFormat = Literal["same", "bfloat16", "int8", "int4"]
