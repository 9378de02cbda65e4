"""What is trained whole beside the adapter: the task head, and any pooler the checkpoint did not bring."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from torch import nn

from lora_search.errors import ModelError


def find_head(model: nn.Module, stack_name: str, fresh: Collection[str]) -> tuple[str, ...]:
    """The leaf modules to train, in the order the model declares them.

    Outside the base (``model.base_model_prefix``), every module is the head's. One exception: when the checkpoint
    brought some of them and lacks others, what it brought was pretrained with the base (the ``head`` of ModernBERT) and
    stays frozen like it. Inside the base, a module is trained when the checkpoint lacks it (the pooler of BERT).

    Args:
        model: the classifier.
        stack_name: dotted name of its layer stack, where nothing may be missing.
        fresh: names of the parameters the checkpoint lacked.

    Raises:
        ModelError: something to train that is neither ``nn.Linear`` nor ``nn.LayerNorm``, or layers without weights.
    """
    base = _base_prefix(model)
    missing = [name for name in fresh if name.startswith(f"{stack_name}.")]
    if missing:
        raise ModelError.about(
            "model.base",
            (
                f"must bring the weights of its layers, the checkpoint lacks {len(missing)} of them, "
                f"{min(missing)} for one"
            ),
            hint="was it saved from another architecture?",
        )
    owners = {name.rpartition(".")[0] for name in fresh}
    outside = [name for name in _parameter_owners(model) if not f"{name}.".startswith(base)]
    lacking = [name for name in outside if name in owners]
    head = set(lacking or outside) | owners
    ordered = tuple(name for name in _parameter_owners(model) if name in head)
    if not ordered:
        raise ModelError.about("model.base", f"must have a classification head, {type(model).__name__} has none")
    for name in ordered:
        _check_supported(name, model.get_submodule(name))
    return ordered


def no_head(fresh: Collection[str]) -> tuple[str, ...]:
    """The leaf modules to train of a language model, whose head is its own: none.

    Args:
        fresh: names of the parameters the checkpoint lacked.

    Raises:
        ModelError: there are such.
    """
    if fresh:
        rule = f"must bring all of its weights, the checkpoint lacks {len(fresh)} of them, {min(fresh)} for one"
        raise ModelError.about("model.base", rule, hint="was it saved from another architecture, or without its head?")
    return ()


def modules_to_save(model: nn.Module, head: Collection[str]) -> tuple[str, ...]:
    """The head in PEFT's terms: for every outermost module that is head and nothing else, the shortest name that suits.

    PEFT trains a copy of each module whose dotted name *ends with* one of these strings
    (``peft.utils.other._set_trainable``), so ``classifier`` takes ``pre_classifier`` along.

    Raises:
        ModelError: no choice of names matches exactly these modules.
    """
    outermost = tuple(_outermost(model, frozenset(head)))
    names = [name for name, _ in model.named_modules() if name]
    chosen = []
    for module in outermost:
        parts = module.split(".")
        suffixes = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
        exact = next((s for s in suffixes if all(name in outermost for name in names if name.endswith(s))), None)
        if exact is None:
            raise ModelError.about(
                "model.base", f"must name its head apart from other modules, {module} cannot be told from others"
            )
        chosen.append(exact)
    return tuple(dict.fromkeys(chosen))


def answering_module(model: nn.Module, head: Collection[str], answers: int) -> str:
    """The module of a head whose outputs are the logits: the last linear one of as many outputs.

    Args:
        model: with that head.
        head: names of its leaf modules, in the order the model declares them.
        answers: how many logits there are.

    Raises:
        ModelError: none is like that.
    """
    modules = [(name, model.get_submodule(name)) for name in head]
    found = [name for name, each in modules if isinstance(each, nn.Linear) and each.out_features == answers]
    if not found:
        rule = "must have a head that ends in an nn.Linear module to answer with numbers"
        raise ModelError.about("model.base", f"{rule}, {type(model).__name__} has none")
    return found[-1]


def _base_prefix(model: nn.Module) -> str:
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not isinstance(getattr(model, prefix, None), nn.Module):
        raise ModelError.about("model.base", f"must keep its base apart from its head, {type(model).__name__} does not")
    return f"{prefix}."


def _parameter_owners(model: nn.Module) -> Iterator[str]:
    """Modules that hold parameters of their own."""
    return (name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None)


def _check_supported(name: str, module: nn.Module) -> None:
    if not isinstance(module, nn.Linear | nn.LayerNorm):
        raise ModelError.about(
            "model.base",
            "must bring all weights but those of nn.Linear and nn.LayerNorm modules of a head",
            got=f"none for {name or 'the model itself'} ({type(module).__name__})",
        )


def _outermost(module: nn.Module, head: frozenset[str], prefix: str = "") -> Iterator[str]:
    for child_name, child in module.named_children():
        name = prefix + child_name
        owners = {f"{name}.{inner}".rstrip(".") for inner in _parameter_owners(child)}
        if owners and owners <= head:
            yield name
        elif owners & head:
            yield from _outermost(child, head, f"{name}.")
