"""A model as a stack of stages, from the head down."""

from typing import Any

from hf_tuner.config import Targets
from hf_tuner.errors import UsageError


def stages(model: Any, targets: Targets) -> list[list[str]]:
    """Parameter names from the top: head and what follows the last block, the blocks last to first, the embeddings.

    What was registered before the first block counts as embeddings. Raises UsageError when no blocks are known.
    """
    if not targets.layers:
        raise UsageError(f"{type(model).__name__} is not a stack of blocks; use --method full or lora")
    names = [name for name, _ in model.named_parameters()]
    blocks = [[n for n in names if n.startswith(f"{layer}.")] for layer in targets.layers]
    inside = {n for block in blocks for n in block}
    first = next((i for i, n in enumerate(names) if n in inside), 0)
    below = [n for n in names[:first] if not any(n.startswith(f"{h}.") for h in targets.head)]
    top = [n for n in names if n not in inside and n not in set(below)]
    return [stage for stage in (top, *reversed(blocks), below) if stage]
