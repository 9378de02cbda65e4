"""Trains packs of cells over one frozen base."""

from lora_search.training.cell import Cell
from lora_search.training.engine import Engine, EngineSettings
from lora_search.training.lanes import lanes_of
from lora_search.training.pack_run import Step, TrainedCell
from lora_search.training.precision import choose_dtype

__all__ = ["Cell", "Engine", "EngineSettings", "Step", "TrainedCell", "choose_dtype", "lanes_of"]
