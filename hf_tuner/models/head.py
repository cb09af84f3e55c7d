"""Which modules are new or belong to the head: they are trained in full and saved beside an adapter.

The list comes from what `from_pretrained` reports as missing, never from a table of names. Every name is a full module
name that peft's `modules_to_save`, which matches by suffix, takes for this module alone.
"""

import copy
from collections.abc import Container, Iterable
from typing import Any

import torch
from torch import nn

from hf_tuner.errors import ArtifactError
from hf_tuner.models.targets import (
    backbone_name,
    find_layers,
    is_norm,
    is_timm,
    is_two_towers,
    is_within,
    timm_classifiers,
)

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules that are never called themselves and so cannot be wrapped; their members can."""


def new_modules(model: Any, missing_keys: Iterable[str]) -> tuple[str, ...]:
    """The fewest modules that hold every missing weight, in the model's order.

    A module all of whose parameters are missing is taken whole, at the highest level below the model and its backbone.
    A key may carry or lack a wrapper's prefix. A weight that hangs on the model or the backbone itself is in no module
    that could be named.

    Raises ArtifactError when weights of the backbone's blocks are missing: the checkpoint is not of this architecture,
    or not whole.
    """
    missing = _resolve(model, missing_keys)
    layers = find_layers(model)
    lost = [key for key in missing if is_within(key, layers)]
    if lost:
        raise ArtifactError(
            f"{len(lost)} weights of the model's layers are not in the checkpoint, or of another size (one is {min(lost)}); "
            "it is incomplete, or of another architecture than its config.json says: download or convert it again"
        )
    owners = {_highest(model, key.rpartition(".")[0], missing) for key in missing}
    whole = _in_order(model, owners - {"", backbone_name(model)})
    return _distinct(model, [n for n in whole if not is_within(n, [other for other in whole if other != n])])


def head_modules(model: Any) -> tuple[str, ...]:
    """The head of a model that lacks nothing: what holds parameters outside the backbone, lone norms left out.

    A model that keeps its head inside (Perceiver) is searched for the layer that gives one output per label; what of
    its surroundings holds no block of the backbone goes with it. Detectors and segmenters have more layers that know
    the classes, beside those or inside (RT-DETR, EoMT): they belong to the head too.
    """
    if is_timm(model):
        return _distinct(model, list(timm_classifiers(model)))
    found = _beside(model)
    inside = {id(m) for name in found for m in model.get_submodule(name).modules()}
    more = {name for name in class_modules(model, inside) if id(model.get_submodule(name)) not in inside}
    return _distinct(model, _in_order(model, {*found, *more})) if more else found


def apart(model: Any) -> tuple[str, ...]:
    """The head, without what shares weights with blocks: detectors that refine boxes in every layer have such heads."""
    blocks = {id(p) for name in find_layers(model) for p in model.get_submodule(name).parameters()}
    return tuple(
        n for n in head_modules(model) if not any(id(p) in blocks for p in model.get_submodule(n).parameters())
    )


def _beside(model: Any) -> tuple[str, ...]:
    root = backbone_name(model)
    if root:
        outside = [
            n for n, child in model.named_children() if n != root and _has_parameters(child) and not is_norm(child)
        ]
        if outside:
            return _distinct(model, outside)
    labels = getattr(model.config, "num_labels", None)
    layers = find_layers(model)
    last = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == labels]
    if not last or is_within(last[-1], layers):
        return ()
    name = last[-1]
    while (parent := name.rpartition(".")[0]) not in ("", root) and not any(is_within(n, [parent]) for n in layers):
        name = parent
    return _distinct(model, [name])


def label_modules(model: Any) -> tuple[str, ...]:
    """What other classes make new: the layers that know the classes where they can be told, or else the whole head."""
    return class_modules(model) or head_modules(model)


def class_modules(model: Any, known: Container[int] = frozenset()) -> tuple[str, ...]:
    """Layers of a model that sees whose size follows from the number of classes, each once; none of other models.

    They are told by laying the model out with one class more, without memory. That is left out where no layer has such a
    size but those whose identities are `known`.
    """
    if is_timm(model):
        return timm_classifiers(model)
    if getattr(model, "main_input_name", None) != "pixel_values":
        return ()
    count = getattr(model.config, "num_labels", 0)
    sized = {n: _width(m) for n, m in model.named_modules() if _width(m) in (count, count + 1)}
    if all(id(model.get_submodule(name)) in known for name in sized):
        return ()
    config = copy.deepcopy(model.config)
    config.num_labels = count + 1
    with torch.device("meta"):
        wider = dict(type(model)(config).named_modules(remove_duplicate=False))
    return tuple(name for name, width in sized.items() if name in wider and _width(wider[name]) != width)


def _width(module: nn.Module) -> int:
    """How many outputs a layer has, or rows of an embedding; 0 of other modules. Quantised layers say so too."""
    found = (getattr(module, name, 0) for name in ("out_features", "out_channels", "num_embeddings"))
    return next((width for width in found if isinstance(width, int) and width), 0)


def projection_modules(model: Any) -> tuple[str, ...]:
    """What leads the towers of a model of two towers (CLIP) into one space and stands beside them; none of other models."""
    layers = find_layers(model) if is_two_towers(model) else ()
    towers = {layer.partition(".")[0] for layer in layers}
    beside = [n for n, child in model.named_children() if n not in towers and _has_parameters(child)]
    return _distinct(model, beside if layers else [])


def attention_modules(model: Any) -> tuple[str, ...]:
    """Attention of torch's own kind, which hands the weights of its linear layer to a kernel: quantised ones do not fit."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention))


def listed_modules(model: Any) -> tuple[str, ...]:
    """Layers that their parent calls out of a plain list of its own (Mask2Former's mask predictor): what is put in their
    place, quantised, would never be called."""
    return tuple(
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, child in module.named_children()
        if any(one is child for held in vars(module).values() if isinstance(held, list) for one in held)
    )


def pooler_modules(model: Any) -> tuple[str, ...]:
    """The pooler inside the backbone, where there is one with parameters: the head reads through it."""
    root = backbone_name(model)
    pooler = getattr(model.get_submodule(root), "pooler", None)
    if not isinstance(pooler, nn.Module) or not _has_parameters(pooler):
        return ()
    return _distinct(model, [f"{root}.pooler" if root else "pooler"])


def output_modules(model: Any) -> tuple[str, ...]:
    """The layer that gives a language model's words, where it has one; T5 keeps it beside its two stacks, BLIP tells only of
    its text decoder's."""
    parts = (module for module in model.modules() if hasattr(module, "get_output_embeddings"))
    output = next((found for part in parts if (found := part.get_output_embeddings()) is not None), None)
    return tuple(name for name, module in model.named_modules() if output is not None and module is output)


def _resolve(model: Any, keys: Iterable[str]) -> set[str]:
    """Missing keys as parameter names of this model; a key that names none (a buffer) is left out."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found: set[str] = set()
    for key in keys:
        found.update([key] if key in names else [n for n in names if n.endswith(f".{key}") or key.endswith(f".{n}")])
    return found


def _highest(model: Any, name: str, missing: set[str]) -> str:
    """The highest module around `name` all of whose parameters are missing, or `name` when not even its own are."""
    root = backbone_name(model)
    best = name
    while name not in ("", root):
        module = model.get_submodule(name)
        if not all(f"{name}.{n}" in missing for n, _ in module.named_parameters(remove_duplicate=False)):
            break
        best = name
        name = name.rpartition(".")[0]
    return best


def _distinct(model: Any, names: list[str]) -> tuple[str, ...]:
    """Names that suffix matching takes for the intended modules only; what cannot be wrapped is opened.

    A module without children stays as it is even when another one ends like it: that one trains in full too then.
    """
    for i, name in enumerate(names):
        module = model.get_submodule(name)
        children = [f"{name}.{n}" for n, child in module.named_children() if _has_parameters(child)]
        if children and (isinstance(module, CONTAINERS) or _confused(model, name, names)):
            return _distinct(model, [*names[:i], *children, *names[i + 1 :]])
    return tuple(names)


def _confused(model: Any, name: str, names: list[str]) -> bool:
    """Whether a module ends in this name that was not asked for, or one outside has it as a step of its path."""
    every = [n for n, _ in model.named_modules() if n not in names]
    return any(n.endswith(name) or (f".{name}." in f".{n}." and not is_within(n, names)) for n in every)


def _in_order(model: Any, names: set[str]) -> list[str]:
    return [n for n, _ in model.named_modules(remove_duplicate=False) if n in names]


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
