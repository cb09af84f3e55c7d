"""qlora: LoRA on a base held in 4 or 8 bits.

QLoRA, Dettmers et al. 2023, arXiv 2305.14314 (NF4 with double quantisation); LLM.int8(), arXiv 2208.07339. Needs
bitsandbytes, which also runs on CPU (slowly). The head stays unquantised: it is new and is trained in full.
An adapter trained on NF4 and put on the unquantised base changes the answers a little (13 % of the logits' scale was
measured); merged into 4-bit weights it changes them a lot (50 %). Merge onto the unquantised base and look at the
drift.
"""

from dataclasses import dataclass
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.errors import EnvironmentFault
from hf_tuner.methods._peft import attach, options, positive, share, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "learning_rate", "quantization"]

SAVES = "adapter"
QUANTIZATION = ("bits", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of LoRA (as in peft) and of the quantised base (as in transformers)."""

    bits: int = option(4, "Bits per weight of the base: 4 or 8.")
    bnb_4bit_quant_type: str = option("nf4", "4-bit number format.", ("nf4", "fp4"))
    bnb_4bit_use_double_quant: bool = option(True, "Quantise the 4-bit scales too.")
    bnb_4bit_compute_dtype: str = option(
        "bfloat16", "Type that 4-bit weights are unpacked to for computing.", ("bfloat16", "float16", "float32")
    )
    r: int = option(16, "Rank of the update.")
    lora_alpha: int | None = option(None, "Scale of the update, divided by r (default: 2r).")
    lora_dropout: float = option(0.0, "Dropout before the low-rank matrices (costs a quarter of the speed on a CPU).")
    target_modules: str | list = target_option()
    rank_pattern: dict | None = option(None, 'Ranks that differ, by layer name or regex: {"layer.11.*query": 32}.')
    alpha_pattern: dict | None = option(None, "Values of lora_alpha that differ, by layer name or regex.")

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot work."""
        if self.bits not in (4, 8):
            raise ValueError(f"bits is {self.bits}; expected 4 or 8 (16 and more bits are --method lora)")
        positive(r=self.r)
        share(lora_dropout=self.lora_dropout)
        if self.lora_alpha is not None:
            positive(lora_alpha=self.lora_alpha)


def quantization(config: Config, head: tuple[str, ...]) -> Any:
    """The `BitsAndBytesConfig` to load the base with; modules named in `head` stay as they are.

    Raises EnvironmentFault when bitsandbytes is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise EnvironmentFault(
            '--method qlora needs bitsandbytes: pip install "hf-tuner[quant]" (or use --method lora)'
        )
    import torch
    from transformers import BitsAndBytesConfig

    if config.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(head))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=config.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=getattr(torch, config.bnb_4bit_compute_dtype),
        llm_int8_skip_modules=list(head),
    )


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Put float32 low-rank matrices beside the quantised layers, train the head in full."""
    settings = options(config, lora_alpha=config.lora_alpha or 2 * config.r)
    return attach(model, "LoraConfig", targets, **{k: v for k, v in settings.items() if k not in QUANTIZATION})
