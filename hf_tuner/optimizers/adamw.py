"""adamw: one learning rate for all; matrices decay, biases, norms and scales do not.

Adam with decoupled weight decay (Loshchilov and Hutter 2017, arXiv 1711.05101). The groups serve every `--optim` of
TrainingArguments: sgd, adafactor, lion, 8-bit AdamW and the rest.
"""

from typing import Any

from hf_tuner.optimizers._groups import grouped


def groups(model: Any, config: Any, base_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups, with and without decay; every trainable parameter once. `config` is not used."""
    return grouped(model, lambda name: base_rate, weight_decay)
