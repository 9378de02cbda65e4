"""What this machine offers to a study."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from textwrap import shorten

import torch
from huggingface_hub import constants, get_session

from lora_search.study.environment import hardware, versions
from lora_search.study.preparation import default_device
from lora_search.training import choose_dtype

_HUB_PATIENCE = 5.0  # seconds


def examine_machine(results: Path) -> list[tuple[str, str]]:
    """(what, finding) pairs: device, cores, memory, bf16, AMX, versions, hub, disk."""
    machine = hardware()
    device = default_device()
    found = [("device", machine["gpu"] or f"CPU ({machine['processor']})")]
    found.append(("cores", f"{machine['cores']}, of which torch uses {machine['threads']}"))
    if device.type == "cuda":
        found.append(("GPU memory", f"{torch.cuda.get_device_properties(device).total_memory / 1024**3:.0f} GiB"))
    auto = choose_dtype("auto", device, 768)
    bf16 = "faster here: precision auto takes it" if auto == torch.bfloat16 else "not faster here: auto takes fp32"
    found.append(("bf16", bf16))
    found.append(("AMX", "yes" if machine["amx_bf16"] else "no"))
    found.extend(versions().items())
    found.append(("model hub", _hub()))
    place = next(parent for parent in (results.resolve(), *results.resolve().parents) if parent.exists())
    found.append(("free disk", f"{shutil.disk_usage(place).free / 1024**3:.0f} GiB at {place}"))
    return found


def _hub() -> str:
    """One question to the hub, not repeated: whether it answers is the answer."""
    start = time.monotonic()
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_PATIENCE, follow_redirects=True).raise_for_status()
    except Exception as error:  # no name, no route, no answer, a proxy's refusal: the libraries have one for each
        reason = shorten(str(error), 80, placeholder=" ...") or type(error).__name__
        return f"not reachable ({reason}); local folders, files and package: locations work"
    return f"reachable ({time.monotonic() - start:.1f} s)"
