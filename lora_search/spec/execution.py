"""``[execution]``: who trains. None of it changes what a training comes to, so a study may go on with another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from lora_search.spec.fields import Section

Gpus = Annotated[float, Field(ge=0, le=1)]


class ExecutionSpec(Section):
    """``[execution]``: the engine that trains, and its workers.

    ``local`` trains on this machine: in one process, or with several ``workers`` in one each; without a number there is
    one for every GPU. ``ray`` trains on the cluster at ``address`` (``"auto"`` for the one this machine is a node of;
    without an address, on a Ray of its own), with as many workers as it has room for. A worker has ``cpus_per_worker``
    CPUs, by default its share of this machine's, in a cluster one; and ``gpus_per_worker`` GPUs, by default one where
    there are any; a half means that two workers share one.
    """

    engine: Literal["local", "ray"] = "local"
    address: str | None = Field(default=None, min_length=1)
    workers: int | None = Field(default=None, ge=1, le=10_000)
    cpus_per_worker: int | None = Field(default=None, ge=1, le=10_000)
    gpus_per_worker: Gpus | None = None

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("engine") == "local":
            raise ValueError('must be left out where execution.engine is "local"')
        return value
