"""A model as a stack of stages, from the head down."""

from itertools import zip_longest
from typing import Any

from hf_tuner.config import Targets
from hf_tuner.errors import UsageError


def stages(model: Any, targets: Targets) -> list[list[str]]:
    """Parameter names from the top: head and what follows the last block, the blocks last to first, the embeddings.

    What was registered before the first block counts as embeddings. Towers that stand side by side are taken down together,
    block by block. Raises UsageError when no blocks are known.
    """
    if not targets.layers:
        raise UsageError(f"{type(model).__name__} is not a stack of blocks; use --method full or lora")
    names = [name for name, _ in model.named_parameters()]
    stacks = [
        [[n for n in names if n.startswith(f"{layer}.")] for layer in reversed(tower)]
        for tower in towers(model, targets)
    ]
    inside = {n for blocks in stacks for block in blocks for n in block}
    roots = [tower[0].partition(".")[0] + "." for tower in towers(model, targets)] if len(stacks) > 1 else [""]
    below: list[str] = []
    for root in roots:
        own = [n for n in names if n.startswith(root)]
        first = next((i for i, n in enumerate(own) if n in inside), 0)
        below += [n for n in own[:first] if not any(n.startswith(f"{h}.") for h in targets.head)]
    top = [n for n in names if n not in inside and n not in set(below)]
    blocks = [[n for block in depth for n in block] for depth in zip_longest(*stacks, fillvalue=[])]
    return [stage for stage in (top, *blocks, below) if stage]


def towers(model: Any, targets: Targets) -> list[list[str]]:
    """The blocks of each tower of a model that embeds pictures and texts, else one list of all blocks."""
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        return [list(targets.layers)]
    found: dict[str, list[str]] = {}
    for layer in targets.layers:
        found.setdefault(layer.partition(".")[0], []).append(layer)
    return list(found.values())
