"""lora: small low-rank matrices beside the frozen linear layers (the default).

LoRA, Hu et al. 2021, arXiv 2106.09685. With a tuned learning rate plain LoRA on all linear layers is within 1-2 % of
its nine best-known variants (arXiv 2602.04998), at about ten times the rate of full fine-tuning.
`use_rslora` (arXiv 2312.03732) keeps the scale right at ranks of 64 and more. Starts other than the default:
gaussian; orthogonal (even ranks); pissa (arXiv 2404.02948) and olora (arXiv 2406.01775), which take their start out
of the base weights; eva (arXiv 2410.07170), which reads training rows through `initialise`.

pissa and olora change the base: switching the adapter off does not give the base back, and A and B alone do not fit
the original weights. `adapt` keeps the start (`model.tuner_start`), and `finish` turns the saved files into an ordinary
LoRA of twice the rank. (peft's own conversion, `path_initial_model_for_weight_conversion`, loses the head.) BatchNorm
statistics are not saved with an adapter.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hf_tuner.config import Targets, option
from hf_tuner.methods._peft import attach, options, positive, share, target_option
from hf_tuner.methods._rates import adapter_rate as learning_rate

__all__ = ["SAVES", "Config", "adapt", "finish", "initialise", "learning_rate"]

SAVES = "adapter"
MUTATING = ("pissa", "pissa_niter_16", "olora")
INITS = ("default", "gaussian", *MUTATING, "orthogonal", "eva")
EVA_BATCHES = 64
"""Training batches that eva reads at most."""
NOT_FOR_THE_MODEL = ("labels", "row", "length")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of LoRA, named as in peft."""

    r: int = option(16, "Rank of the update; 8 is enough below a thousand rows.")
    lora_alpha: int | None = option(None, "Scale of the update, divided by r (default: 2r; 16 with use_rslora).")
    lora_dropout: float = option(0.0, "Dropout before the low-rank matrices (costs a quarter of the speed on a CPU).")
    target_modules: str | list = target_option()
    use_rslora: bool = option(False, "Divide lora_alpha by the square root of r: for ranks of 64 and more.")
    rank_pattern: dict | None = option(None, 'Ranks that differ, by layer name or regex: {"layer.11.*query": 32}.')
    alpha_pattern: dict | None = option(None, "Values of lora_alpha that differ, by layer name or regex.")
    bias: str = option("none", "Biases to train as well.", ("none", "all", "lora_only"))
    init_lora_weights: str = option("default", "How the matrices start.", INITS)

    def __post_init__(self) -> None:
        """Raise ValueError for settings that cannot work together."""
        positive(r=self.r)
        share(lora_dropout=self.lora_dropout)
        if self.lora_alpha is not None:
            positive(lora_alpha=self.lora_alpha)
        ranks = [self.r, *(self.rank_pattern or {}).values()]
        if self.init_lora_weights == "orthogonal" and any(r % 2 for r in ranks):
            raise ValueError(f"init_lora_weights orthogonal needs even ranks, got {ranks}; use an even r")
        patterns = self.rank_pattern or self.alpha_pattern
        if self.init_lora_weights in MUTATING and self.use_rslora and patterns:
            raise ValueError(
                f"init_lora_weights {self.init_lora_weights} cannot be saved as a plain LoRA when use_rslora meets "
                "rank_pattern or alpha_pattern; leave out one of them"
            )


def adapt(model: Any, config: Config, targets: Targets) -> Any:
    """Freeze the model, put low-rank matrices beside the selected layers, train the head in full."""
    start = True if config.init_lora_weights == "default" else config.init_lora_weights
    alpha = config.lora_alpha or (16 if config.use_rslora else 2 * config.r)
    extra: dict[str, Any] = {}
    if start == "eva":
        from peft import EvaConfig

        extra["eva_config"] = EvaConfig()
    adapted = attach(
        model, "LoraConfig", targets, **options(config, lora_alpha=alpha, init_lora_weights=start), **extra
    )
    if start in MUTATING:
        adapted.tuner_start = _matrices(adapted)
    return adapted


def initialise(model: Any, config: Config, batches: Callable[[], Iterable[dict[str, Any]]]) -> None:
    """Set the matrices from training batches (input_ids, attention_mask: [rows, tokens]) where the start is eva.

    `batches` opens a new pass over the training rows; a batch needs at least r real tokens. Call it before the
    optimiser is made: ranks move between layers. Other starts need nothing and are left alone.
    """
    if config.init_lora_weights != "eva":
        return
    import peft

    # peft would take labels for a mask over tokens, and goes round the batches until the directions settle.
    inputs = [
        {k: v for k, v in batch.items() if k not in NOT_FOR_THE_MODEL} for batch in islice(batches(), EVA_BATCHES)
    ]
    peft.initialize_lora_eva_weights(model, inputs, show_progress_bar=False)


def finish(model: Any, config: Config, folder: Path) -> None:
    """Make the adapter saved in `folder` fit the original base: ΔW = BA - B₀A₀ = [B, -B₀]·[A; A₀], rank 2r.

    Does nothing for starts that leave the base alone. For the adapter that is handed out, not for checkpoints: training
    goes on from A and B themselves.
    """
    if config.init_lora_weights not in MUTATING:
        return
    import torch
    from peft import LoraConfig
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name, start in model.tuner_start.items():
        down = ".lora_A." in name
        tensors[name] = torch.cat([tensors[name], start if down else -start], dim=0 if down else 1).contiguous()
    save_file(tensors, file, metadata={"format": "pt"})
    saved = LoraConfig.from_pretrained(folder)
    grown = 2**0.5 if saved.use_rslora else 2  # keeps lora_alpha / r, or lora_alpha / √r, as it was
    saved.init_lora_weights = True
    saved.r, saved.lora_alpha = 2 * saved.r, grown * saved.lora_alpha
    saved.rank_pattern = {k: 2 * v for k, v in saved.rank_pattern.items()}
    saved.alpha_pattern = {k: 2 * v for k, v in saved.alpha_pattern.items()}
    saved.save_pretrained(folder)


def _matrices(model: Any) -> dict[str, Any]:
    """A and B of every layer as they are saved, copied to the CPU."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {n: t.detach().cpu().clone() for n, t in state.items() if ".lora_A." in n or ".lora_B." in n}
