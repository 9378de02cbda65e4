"""Where the files of a base model are, and what it means when a library cannot read them.

The hub is asked once, first. If it cannot be reached, everything is read from the cache of this machine and nothing
waits for the network again. Weights are read from safetensors or GGUF, never through pickle, and code that a checkpoint
brings runs only where the experiment says ``trust_remote_code``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from logging import ERROR
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging
from transformers.utils.peft_utils import find_adapter_config_file

from lora_search.errors import InputError, MachineError, ModelError
from lora_search.spec.experiment import ModelSpec
from lora_search.spec.locations import HubId, resolve
from lora_search.spec.paths import check_no_pointer, kind_of, path_errors_as
from lora_search.spec.quoting import in_one_line, quoted, quoted_path

_HUB_PATIENCE = 10.0  # seconds to wait for the hub's first answer
_REASON_WIDTH = 200  # characters of a library's message worth repeating
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_FETCHED = ("config.json", "*.model", "tokenizer.json", "model*.safetensors")  # of what Git LFS may keep elsewhere
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A model's files.

    Attributes:
        name: what the user wrote, for messages.
        source: the folder or hub id, as ``from_pretrained`` takes it.
        gguf_file: the file inside ``source``, if its weights are GGUF.
        revision: branch, tag or commit on the hub.
        cached_only: whether only this machine is looked at: a folder, or a hub out of reach.
        trust_remote_code: whether Python files of the checkpoint may run.
    """

    name: str
    source: str
    gguf_file: str | None
    revision: str | None
    cached_only: bool
    trust_remote_code: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``from_pretrained``, for config, tokenizer and model alike."""
        arguments: dict[str, Any] = {
            "local_files_only": self.cached_only,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.revision is not None:
            arguments["revision"] = self.revision
        if self.gguf_file is not None:
            arguments["gguf_file"] = self.gguf_file
        return arguments

    @contextmanager
    def reading(self, purpose: str = "be loaded") -> Iterator[None]:
        """Silences transformers, and turns whatever it raises while it reads this checkpoint into an ``InputError``.

        Args:
            purpose: what the model is wanted for, for messages.
        """
        try:
            with quiet_libraries(), self._no_bars_for_gguf():
                yield
        except InputError:
            raise
        except Exception as error:  # a damaged or foreign checkpoint can fail anywhere inside the libraries
            raise self._explained(error, purpose) from error

    def check_no_adapter(self) -> None:
        """Transformers would load the adapter into the base, and nothing would say so.

        Raises:
            ModelError: an adapter lies beside the model.
        """
        if find_adapter_config_file(self.source, revision=self.revision, local_files_only=self.cached_only):
            raise ModelError.about(
                "model.base",
                "must be a model without an adapter",
                got=f"{quoted_path(self.name)}, which has {_ADAPTER_CONFIG} beside its weights",
                hint="merge that adapter and save the model alone, or name the model it was made for",
            )

    def _no_bars_for_gguf(self) -> AbstractContextManager[object]:
        # That reader draws its bar on stderr unasked. Where a download may come first, its bar is worth having.
        return redirect_stderr(StringIO()) if self.gguf_file and self.cached_only else nullcontext()

    def _explained(self, error: Exception, purpose: str) -> InputError:
        reason = in_one_line(str(error), _REASON_WIDTH) or type(error).__name__
        name = quoted_path(self.name)
        if isinstance(error, ImportError):
            return MachineError.about("model.base", "needs a package this machine lacks", got=f"{name}: {reason}")
        if isinstance(error, OSError) and self.cached_only and not Path(self.source).exists():
            return ModelError.about(
                "model.base",
                "must be a folder, a model in the cache of this machine, or on the hub while it is within reach",
                got=name,
                hint="the hub does not answer: go online once, or give a folder",
            )
        if "trust_remote_code" in str(error):
            return ModelError.about(
                "model.trust_remote_code",
                f"must be true to run the Python code that {name} brings",
                got="false",
                hint="read that code first",
            )
        if "Unrecognized configuration class" in reason:
            return ModelError.about("model.base", f"must be a model that can {purpose}", got=f"{name}: {reason}")
        return ModelError.about("model.base", "must be a model that transformers can load", got=f"{name}: {reason}")


def find_checkpoint(spec: ModelSpec) -> Checkpoint:
    """From ``[model]`` to the files, without reading them.

    ``base`` may be a GGUF file itself; that is its folder and ``gguf_file`` in one.

    Raises:
        ModelError: nothing there, or no model; the hub knows no such model; a revision of a folder.
        MachineError: GGUF without the package that reads it.
    """
    place = resolve(spec.base, key="model.base", error=ModelError, bare_hub_ids=True)
    if isinstance(place, HubId):
        source, gguf_file = place.name, spec.gguf_file
    elif spec.revision is not None:
        raise ModelError.about(
            "model.revision", "must be left out unless model.base is on the hub", got=quoted(spec.revision)
        )
    else:
        with path_errors_as(place, key="model.base", error=ModelError):
            source, gguf_file = _in_folder(place, spec)
    if gguf_file is not None and find_spec("gguf") is None:
        raise MachineError.about(
            "model.gguf_file", "needs the gguf package", got=quoted(gguf_file), hint="pip install 'lora-search[gguf]'"
        )
    return Checkpoint(
        name=spec.base,
        source=source,
        gguf_file=gguf_file,
        revision=spec.revision,
        cached_only=not (isinstance(place, HubId) and _hub_answers(place.name, spec.revision)),
        trust_remote_code=spec.trust_remote_code,
    )


def _in_folder(place: Path, spec: ModelSpec) -> tuple[str, str | None]:
    """(folder, name of the GGUF file in it or None)."""
    base = quoted_path(spec.base)
    if place.is_file():
        if place.suffix != ".gguf" or spec.gguf_file not in (None, place.name):
            raise ModelError.about("model.base", "must be the folder of a model or a GGUF file", got=f"the file {base}")
        check_no_pointer(place, error=ModelError, key="model.base")
        return str(place.parent), place.name
    if spec.gguf_file is not None:
        if Path(spec.gguf_file).name != spec.gguf_file or spec.gguf_file == "..":
            rule = "must be the name of a file in model.base"
            raise ModelError.about("model.gguf_file", rule, got=quoted(spec.gguf_file))
        if kind_of(place / spec.gguf_file, key="model.gguf_file", error=ModelError) != "file":
            there = ", ".join(sorted(path.name for path in place.glob("*.gguf"))) or "no GGUF file"
            raise ModelError.about(
                "model.gguf_file", f"must be in {base}", got=quoted(spec.gguf_file), hint=f"it has {there}"
            )
        check_no_pointer(place / spec.gguf_file, error=ModelError, key="model.gguf_file")
        return str(place), spec.gguf_file
    _check_is_model(place, base)
    return str(place), None


def _check_is_model(place: Path, base: str) -> None:
    """Said here, in words, rather than by whichever library stumbles first.

    Raises:
        ModelError: the folder holds an adapter, a model one folder down, pickled weights, files that Git LFS has yet to
            fetch, or no model.
    """
    for path in sorted(found for pattern in _FETCHED for found in place.glob(pattern)):
        check_no_pointer(path, error=ModelError, key="model.base")
    has_weights = any(path.name != _ADAPTER_WEIGHTS for path in place.glob("*.safetensors"))
    adapter = place / _ADAPTER_CONFIG
    if adapter.is_file() and not has_weights:
        made_for = _read_object(adapter).get("base_model_name_or_path")
        named = f": {quoted(made_for)}" if isinstance(made_for, str) and made_for else ""
        hint = f"name the model it was made for{named}"
        raise ModelError.about("model.base", "must be a model", got=f"{base}, which is an adapter", hint=hint)
    config = place / "config.json"
    if not config.is_file() or (not has_weights and "model_type" not in _read_object(config)):
        below = [path.parent.name for path in sorted(place.glob("*/config.json")) if "model_type" in _read_object(path)]
        hint = f"the model is one folder down: {quoted_path(place / below[0])}" if below else ""
        lacks = "config.json" if not config.is_file() else "model_type in its config.json"
        rule = "must be the folder of a model"
        raise ModelError.about("model.base", rule, got=f"{base}, which has no {lacks}", hint=hint)
    if not has_weights:
        pickles = sorted(path.name for pattern in _PICKLES for path in place.glob(pattern))
        got = f"only {quoted(pickles[0])}, a pickle, which could run code and is not read" if pickles else "none"
        raise ModelError.about(
            "model.base",
            "must have its weights in safetensors files",
            got=f"{base}, which has {got}",
            hint="save_pretrained of transformers writes them",
        )


def _read_object(path: Path) -> dict[str, object]:
    """A JSON object, empty where there is none to read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _hub_answers(name: str, revision: str | None) -> bool:
    """Whether the hub can be asked about a model. If not, what is cached on this machine is all there is.

    Raises:
        ModelError: it answers that there is no such model or revision, or that the user may not have it.
    """
    try:
        HfApi().model_info(name, revision=revision, timeout=_HUB_PATIENCE)
    except GatedRepoError as error:
        raise ModelError.about(
            "model.base",
            "must be open to you",
            got=quoted_path(name),
            hint="accept its terms on its page, then `hf auth login`",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError.about("model.revision", f"must exist in {quoted_path(name)}", got=quoted(revision)) from error
    except RepositoryNotFoundError as error:
        raise ModelError.about(
            "model.base",
            "must be a folder or a model on the hub",
            got=quoted_path(name),
            hint="if it is private, `hf auth login`",
        ) from error
    except Exception:  # whatever keeps the hub from answering, the cache is where to look next
        return False
    return True


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No load report, no bars for reading weights, no advice. Bars of downloads stay: those take long."""
    before = (transformers_logging.get_verbosity(), hub_logging.get_verbosity())
    hook = transformers_logging.set_tqdm_hook(
        lambda factory, args, kwargs: factory(*args, **{**kwargs, "disable": True})
    )
    transformers_logging.set_verbosity(ERROR)
    hub_logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before[0])
        hub_logging.set_verbosity(before[1])
        transformers_logging.set_tqdm_hook(hook)
