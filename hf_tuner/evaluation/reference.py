"""What a model said before it was trained, beside the rows: preference losses and rewards are set beside it.

It is computed once over all rows, so that no second model stands in memory while training.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from hf_tuner.console import count, say
from hf_tuner.evaluation.loop import keep_outputs


def with_start(task: Any, model: Any, ready: Mapping[str, Any], collate: Callable, arguments: Any) -> dict[str, Any]:
    """Encoded rows of every split with a column "reference": what the task keeps of the model before its first update.

    Rows of a task that refers to nothing come back as they are. A model that is set beside itself must begin where it is
    set: training rows are read in the precision of training (what is measured is in float32, as ever), and nothing is
    dropped at random while training but where the method's own settings say so.
    """
    if not task.refers:
        return dict(ready)
    said = f"what the model says of {count(sum(map(len, ready.values())))} rows before it is trained"
    say(f"  reference {said}" + ("; it trains without its dropout, to be set beside that" if still(model) else ""))
    batch, half = arguments.per_device_eval_batch_size, torch.bfloat16 if arguments.bf16 else torch.float16
    result = {}
    for split, rows in ready.items():
        as_trained = split == "train" and bool(arguments.bf16 or arguments.fp16)
        with torch.autocast(arguments.device.type, half, enabled=as_trained):
            result[split] = _beside(task, model, rows, collate, batch)
    return result


def still(model: Any) -> bool:
    """Switch off what a model drops at random, in its modules and not in its configuration; whether there was any.

    The dropout of an adapter's own matrices stays: they start with no effect.
    """
    found = False
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            continue
        own = [key for key, value in vars(module).items() if isinstance(value, float) and value and _drops(key, module)]
        for key in own:
            setattr(module, key, 0.0)
        found |= bool(own)
    return found


def _drops(name: str, module: Any) -> bool:
    return "drop" in name or (name == "p" and isinstance(module, torch.nn.modules.dropout._DropoutNd))


def with_base(task: Any, model: Any, ready: Any, collate: Callable, batch_size: int) -> Any:
    """Encoded rows with the same column, for a saved adapter: its base is the start.

    That of a whole model, or of an adapter that trained the base's own biases, is not at hand: rows stay as they are.
    """
    return _beside(task, model, ready, collate, batch_size) if task.refers and _goes_off(model) else ready


def _beside(task: Any, model: Any, rows: Any, collate: Callable, batch_size: int) -> Any:
    # What turns the base's weights before training (PiSSA and its kin) starts as the base only while it is switched on.
    off = _goes_off(model) and getattr(model, "tuner_start", None) is None
    with model.disable_adapter() if off else nullcontext():
        kept = keep_outputs(model, rows, collate, task.outputs, batch_size)
    return rows.add_column("reference", [row.tolist() for row in kept])


def _goes_off(model: Any) -> bool:
    """Whether the base stands under an adapter unchanged; one that trains the base's own biases changes it."""
    return hasattr(model, "peft_config") and getattr(model.peft_config["default"], "bias", "none") == "none"
