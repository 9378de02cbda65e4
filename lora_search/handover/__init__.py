"""The adapter in other hands: what PEFT is told of it, how its base is loaded, and the proof that both agree with us.

``export`` writes a trained adapter by it; ``study`` tries it with an untrained one before anything is trained.
"""

from lora_search.handover.answers import exported_state, offset_of
from lora_search.handover.config import adapter_config, base_location, whole
from lora_search.handover.loading import Loading, loading_of
from lora_search.handover.reload import TOLERANCE, check_reload

__all__ = [
    "TOLERANCE",
    "Loading",
    "adapter_config",
    "base_location",
    "check_reload",
    "exported_state",
    "loading_of",
    "offset_of",
    "whole",
]
