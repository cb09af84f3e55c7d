"""What to do with a checkpoint that already has a classification head."""

import re
from typing import Any

import torch

from hf_tuner.console import say

GENERIC = re.compile(r"^LABEL_\d+$")


def align_labels(model: Any, head: tuple[str, ...], known: Any, task: Any) -> bool:
    """Make a loaded head speak the data's classes: reorder its rows, or start it anew (then True). Says which.

    `known` is the checkpoint's own configuration. Loading with the caller's `id2label` would silently swap classes
    when the same names come in another order.
    """
    names, old = list(task.label_names), _known_names(known)
    if knows_other_classes(known, task):
        _restart(model, head)
        say(f"  head      the checkpoint's head was trained for other classes ({', '.join(old[:5])} …); it starts anew")
        return True
    position = {name.strip().lower(): i for i, name in enumerate(old)}
    order = [position.get(name.strip().lower(), -1) for name in names]
    if order != list(range(len(order))) and -1 not in order:
        _reorder(model, head, order)
        say(
            f"  head      the checkpoint knows these classes in another order; its rows were reordered: {', '.join(names)}"
        )
    return False


def knows_other_classes(known: Any, task: Any) -> bool:
    """Whether the head of a checkpoint (by its configuration) was trained for classes that are not the task's."""
    names, old = list(task.label_names), _known_names(known)
    if not names or old == names or all(GENERIC.match(n) for n in old):
        return False
    return sorted({n.strip().lower() for n in old}) != sorted(n.strip().lower() for n in names)


def _known_names(known: Any) -> list[str]:
    return [str((known.id2label or {}).get(i, "")) for i in range(len(known.id2label or {}))]


def _reorder(model: Any, head: tuple[str, ...], order: list[int]) -> None:
    """Detectors and segmenters have one row more than classes, the last: nothing is there."""
    spare = (0, 1) if getattr(model, "main_input_name", None) == "pixel_values" else (0,)
    with torch.no_grad():
        for name in head:
            for parameter in model.get_submodule(name).parameters():
                rows = parameter.shape[0] if parameter.ndim else 0
                if rows - len(order) in spare:
                    index = torch.tensor([*order, *range(len(order), rows)], device=parameter.device)
                    parameter.copy_(parameter[index])


def _restart(model: Any, head: tuple[str, ...]) -> None:
    """Draw the head anew as its class does, with the biases that the class loss expects; nothing else is touched.

    transformers leaves alone what is marked as read. Modules around the head are asked as well: a detector sets the
    prior of its class layers from its top.
    """
    new = [module for name in head for module in model.get_submodule(name).modules()]
    around = {name[:end] for name in head for end in (0, *(i for i, letter in enumerate(name) if letter == "."))}
    asked = {id(module) for module in (*new, *map(model.get_submodule, around))}
    drawn = {id(tensor) for module in new for tensor in (*module.parameters(), *module.buffers())}
    for module in model.modules():
        module._is_hf_initialized = id(module) not in asked
    for tensor in (*model.parameters(), *model.buffers()):
        tensor._is_hf_initialized = id(tensor) not in drawn
    for module in new:
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # where the class says nothing
    model.initialize_weights()
