"""Out of memory before training instead of in it: a micro-batch that does not fit is cut, the update stays the same.

One forward and backward pass on the longest rows, with the optimizer's state beside it, shows what fits. The trial
leaves no trace: weights, gradients, buffers and random states are what they were.
"""

import contextlib
import gc
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments

from hf_tuner.console import say
from hf_tuner.errors import EnvironmentFault
from hf_tuner.evaluation.loop import batches_by_length, to_device
from hf_tuner.faults import LESS_MEMORY, plainly
from hf_tuner.machine import available, mapped
from hf_tuner.training.batching import Rows
from hf_tuner.training.plan import memory_bytes

MOMENTS = 2
"""Copies of the trained weights that AdamW keeps."""


def fit_in_memory(arguments: TrainingArguments, model: Any, rows: Any, collate: Callable, loss: Callable) -> None:
    """Lower the micro-batch in `arguments` until a step fits, with more accumulation in exchange.

    Rows per update do not change. Raises EnvironmentFault when one row at a time does not fit either.
    """
    # Each process sees its own memory: when one wants the trial, all of them make it.
    if _all_agree(not _worth_trying(arguments, model, rows), arguments):
        return
    asked = batch = arguments.per_device_train_batch_size
    while not _all_agree(_fits(arguments, model, rows, collate, loss, batch), arguments):
        if batch == 1:
            length = _longest(rows)
            raise EnvironmentFault(f"one row of {length} tokens does not fit into memory.\nWhat needs less: "
                                   f"{LESS_MEMORY.partition(', ')[2]}")  # fmt: skip
        batch = next(b for b in range(batch // 2, 0, -1) if batch % b == 0)
    if batch < asked:
        arguments.per_device_train_batch_size = batch
        arguments.gradient_accumulation_steps *= asked // batch
        say(f"  memory    {asked} rows at once do not fit: {batch} × {arguments.gradient_accumulation_steps} instead, "
            "as many rows an update")  # fmt: skip


def _worth_trying(arguments: TrainingArguments, model: Any, rows: Any) -> bool:
    """On an accelerator always; on a CPU when an estimate says that memory may run out. Sharded models are left alone."""
    if arguments.deepspeed or arguments.fsdp or not len(rows):
        return False
    if arguments.device.type != "cpu":
        return True
    need = memory_bytes(model, arguments.per_device_train_batch_size, _longest(rows))
    return need["sum"] - need["weights"] > available()


def _longest(rows: Any) -> int:
    return int(np.asarray(rows.with_format(None)["length"]).max())


def _fits(arguments: TrainingArguments, model: Any, rows: Any, collate: Callable, loss: Callable, batch: int) -> bool:
    index = next(batches_by_length(rows, batch))
    try:
        with _without_trace(arguments, model), _ceiling(arguments.device):
            trained = [p for p in model.parameters() if p.requires_grad]
            copies = MOMENTS + (arguments.world_size > 1)  # several processes keep the gradients twice
            state = [torch.empty_like(p) for p in trained for _ in range(copies)]
            inputs = to_device(
                collate(Rows(rows).__getitems__(index.tolist())), arguments.device
            )  # as training has them
            half = torch.bfloat16 if arguments.bf16 else torch.float16
            with torch.autocast(arguments.device.type, half, enabled=bool(arguments.bf16 or arguments.fp16)):
                value = loss(model, inputs)
            value.backward()
            del state, inputs, value
    except (RuntimeError, MemoryError) as error:
        if not isinstance(plainly(error), EnvironmentFault):
            raise
        return False
    return True


@contextlib.contextmanager
def _without_trace(arguments: TrainingArguments, model: Any) -> Iterator[None]:
    """Buffers, gradients, mode and random states are afterwards what they were."""
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    devices = [arguments.device] if arguments.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            model.train()
            if arguments.gradient_checkpointing:
                _checkpointing(model, "enable", arguments.gradient_checkpointing_kwargs)
            yield
    finally:
        if arguments.gradient_checkpointing:
            _checkpointing(model, "disable")
        for parameter in model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
        for module, training in modes.items():
            module.training = training
        gc.collect()
        if arguments.device.type == "cuda":
            torch.cuda.empty_cache()


def _checkpointing(model: Any, verb: str, *settings: Any) -> None:
    """Switch activation checkpointing, which older versions of transformers call gradient checkpointing."""
    new = getattr(model, f"activation_checkpointing_{verb}", None)
    (new or getattr(model, f"gradient_checkpointing_{verb}"))(*settings)


@contextlib.contextmanager
def _ceiling(device: torch.device) -> Iterator[None]:
    """On a CPU an allocation past the free memory fails, instead of having the kernel kill the process."""
    if device.type != "cpu" or available() == float("inf"):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(mapped() + available()), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _all_agree(fits: bool, arguments: TrainingArguments) -> bool:
    """True when a step fits on every process: all must use the same micro-batch."""
    if arguments.world_size == 1:
        return fits
    verdict = torch.tensor(int(fits), device=arguments.device)
    torch.distributed.all_reduce(verdict, torch.distributed.ReduceOp.MIN)
    return bool(verdict.item())
