"""The transformers Trainer with four things changed: loss scaling, batch order, finite numbers, what is saved."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.errors import DivergedError
from hf_tuner.training.batching import LengthBatches, Rows
from hf_tuner.training.resumable import ResumableTrainer


class TunerTrainer(ResumableTrainer):
    """Trains with batches of similar length, optimiser plugs, and a stop at the first number that is not finite."""

    def __init__(self, run: Run, arguments: TrainingArguments, model: Any, loss: Callable, collate: Callable,
                 data: dict[str, Any], score: Callable) -> None:  # fmt: skip
        self.run = run
        self.rows_in_batch: list[int] = []
        self.train_order: LengthBatches | None = None
        super().__init__(
            model=model,
            args=arguments,
            data_collator=_with_row_numbers(collate),
            train_dataset=Rows(data["train"]),
            eval_dataset=Rows(data["validation"]) if "validation" in data else None,
            compute_loss_func=loss,
            compute_metrics=score,
            callbacks=[_Epochs(self)],
        )
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBatches:
        rows = self.args.train_batch_size * self.args.world_size
        self.train_order = LengthBatches(
            np.asarray(self.train_dataset.data.with_format(None)["length"]),
            update=rows * self.args.gradient_accumulation_steps,
            multiple=rows if self.args.world_size > 1 else 1,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
        )
        return self.train_order

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        rows = inputs.pop("row", None)
        self.rows_in_batch = rows.tolist() if rows is not None else []
        return super()._prepare_inputs(inputs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch. Raises DivergedError when its loss is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            self._diverged("loss", loss.item())
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value = float(norm) if norm is not None else 0.0
        # A gradient scaler (fp16) finds its scale by overflowing and skips such steps itself.
        if not np.isfinite(value) and getattr(self.accelerator, "scaler", None) is None:
            self._diverged("gradient norm", value)
        return norm

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Logits and labels of a batch; the loss is left to `score`, which sees every row exactly once."""
        _, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return None, logits, labels

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser, with the parameter groups of the run's optimiser plug."""
        if getattr(self, "optimizer", None) is None:
            target = self.model if model is None else model
            plug = catalog.load("optimizers", self.run.optimizer)
            config = self.run.plugs.get(self.run.optimizer)
            groups = plug.groups(target, config, self.args.learning_rate, self.args.weight_decay)
            build, options = self.get_optimizer_cls_and_kwargs(self.args, target)
            self.optimizer = build(options.pop("params", groups), **options)
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # The Trainer's own _save also writes training_args.bin, a pickle that may hold a token; we never do.
        folder = Path(output_dir or str(self.args.output_dir))
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            model = self.accelerator.unwrap_model(self.model)
            model.save_pretrained(folder, state_dict=state_dict)

    def _diverged(self, what: str, value: float) -> None:
        step = self.state.global_step + 1
        kept = sorted(Path(str(self.args.output_dir)).glob("checkpoint-*"), key=lambda p: p.stat().st_mtime)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint had been written yet"
        rows = ", ".join(str(r) for r in self.rows_in_batch[:12])
        raise DivergedError(
            f"training diverged: the {what} is {value} at step {step} (training rows {rows} …); {last}.\n"
            f"Try a lower --learning-rate (now {self.args.learning_rate:g}), more warm-up, or look at those rows."
        )


class _Epochs(TrainerCallback):
    """Tells the batch order which epoch it is; accelerate does not reach samplers it did not make."""

    def __init__(self, trainer: TunerTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.train_order is not None:
            self.trainer.train_order.set_epoch(int(state.epoch or 0))


def _with_row_numbers(collate: Callable) -> Callable:
    def batch(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
        rows = list(rows)
        return {**collate(rows), "row": torch.tensor([r["row"] for r in rows])}

    return batch
