"""The transformers Trainer with seven things changed: loss scaling, batch order, evaluation, averaged weights, finite
numbers, stalls, what is saved."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from hf_tuner import catalog
from hf_tuner.config import Run
from hf_tuner.errors import UsageError
from hf_tuner.evaluation.loop import Kept, keep_outputs
from hf_tuner.faults import in_plain_words, plainly
from hf_tuner.report.wording import LOWER_IS_BETTER
from hf_tuner.training.averaging import Average
from hf_tuner.training.batching import LengthBatches, Rows
from hf_tuner.training.divergence import LossLimit, not_finite, require_finite
from hf_tuner.training.memory import fit_in_memory
from hf_tuner.training.objective import class_weights, objective
from hf_tuner.training.resumable import ResumableTrainer
from hf_tuner.training.stalls import EVALUATION, LOADING, SAVING, STEP, Watch


class TunerTrainer(ResumableTrainer):
    """Trains with batches of similar length, optimiser plugs, and a stop at the first number that is not finite."""

    def __init__(self, run: Run, task: Any, arguments: TrainingArguments, model: Any, collate: Callable,
                 data: dict[str, Any], score: Callable[[Kept], dict[str, float]] | None = None) -> None:  # fmt: skip
        self.run, self.task, self.method = run, task, catalog.load("methods", run.method)
        self.collate, self.score = collate, score
        self.objective = objective(run, task, class_weights(run, task, data["train"]))
        self.rows_in_batch: list[int] = []
        self.rows_in_update: list[int] = []
        self.loss_of_update: torch.Tensor | float = 0.0
        self.limit = LossLimit(run.stop_above) if run.stop_above is not None else None
        self.train_order: LengthBatches | None = None
        self.watch = Watch(run.stall_timeout, Path(str(arguments.output_dir)), arguments.device.type)
        fit_in_memory(arguments, model, data["train"], collate, self.objective)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=_with_row_numbers(collate),
            train_dataset=Rows(data["train"]),
            eval_dataset=Rows(data["validation"]) if "validation" in data else None,
            compute_loss_func=self.objective,
            callbacks=[_Epochs(self)],
        )
        self.loss_is_scaled_for_ga = True
        if run.ema is not None:
            self._take_averages(run.ema)

    def _take_averages(self, decay: float) -> None:
        if self._is_sharded():
            raise UsageError(
                "--ema: no process of a sharded run (FSDP, DeepSpeed) has the whole weights; leave --ema out"
            )
        self.average = Average(self.model, decay)
        self.add_callback(self.average)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch progress. Raises one of our errors for memory, data workers and lost processes."""
        with self.watch, in_plain_words(lambda: f" in {self.watch.phase} at step {self.watch.step}"):
            yield

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of the next update."""
        self.watch.beat(LOADING, self.state.global_step + 1)
        self.rows_in_update, self.loss_of_update = [], 0.0
        return super().get_batch_samples(*args, **kwargs)

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
        step = self.state.global_step + 1
        self.watch.beat(STEP, step)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.rows_in_update += self.rows_in_batch
        self.loss_of_update = self.loss_of_update + loss
        if not torch.isfinite(loss):
            raise not_finite("loss", loss.item(), step, self.rows_in_batch, self.args)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        value, step = float(norm) if norm is not None else 0.0, self.state.global_step + 1
        # A gradient scaler (fp16) finds its scale by overflowing and skips such steps itself.
        if not np.isfinite(value) and getattr(self.accelerator, "scaler", None) is None:
            if self.args.world_size > 1:
                time.sleep(1.0)  # the gradients are everybody's: the process whose loss it was speaks first
            raise not_finite("gradient norm", value, step, self.rows_in_update, self.args)
        if self.limit is not None:
            loss = self.accelerator.gather(torch.as_tensor(self.loss_of_update)).mean().item()
            self.limit.add(loss, step, Path(str(self.args.output_dir)))
        return norm

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Any = None) -> Any:  # fmt: skip
        """The objective of a micro-batch. Its gradients are averaged over processes, and it is a sum over all: hence the factor."""
        loss = self.objective(model, inputs, num_items_in_batch)
        loss = loss * self.accelerator.num_processes if num_items_in_batch is not None else loss
        return (loss, None) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        """Items of an update, over its micro-batches and all processes, as the task counts them."""
        if not batch_samples:
            return None
        count = torch.stack([self.task.items(batch) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(count).sum() if self.args.world_size > 1 else count

    def evaluation_loop(self, dataloader: Any, description: str, prediction_loss_only: bool | None = None,
                        ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval") -> EvalLoopOutput:  # fmt: skip
        """Scores of the validation rows, each seen once; of the outputs only what the task scores is kept."""
        rows = self.eval_dataset.data
        model, batch = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        with self.compute_loss_context_manager():
            kept = keep_outputs(model, rows, self.collate, self.task.quick_outputs, batch, each=self._evaluating)
        scores = self.score(kept) if self.score is not None else {}
        metrics: dict[str, float] = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(rows))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether this is the best checkpoint: by the headline where the task logs no loss and nothing else was asked for."""
        if self.args.metric_for_best_model == "loss" and "eval_loss" not in metrics:
            self.args.metric_for_best_model = next(iter(metrics)).removeprefix("eval_")
            self.args.greater_is_better = self.args.metric_for_best_model not in LOWER_IS_BETTER
        return bool(super()._determine_best_metric(metrics, trial))

    def _evaluating(self) -> None:
        self.watch.beat(EVALUATION, self.state.global_step)
        self.callback_handler.on_prediction_step(self.args, self.state, self.control)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Scores of the validation rows. Raises DivergedError when one is not finite."""
        with self.average.instead() if self.average else nullcontext():
            metrics = super().evaluate(*args, **kwargs)
        require_finite(metrics, self.state.global_step, str(self.args.output_dir))
        return metrics

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.watch.beat(SAVING, self.state.global_step)
        super()._save_checkpoint(*args, **kwargs)
        self.watch.beat(STEP, self.state.global_step)

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
        try:
            made = collate(rows)
        except Exception as error:
            raise _bad_row(collate, rows, error) from error
        return {**made, "row": torch.tensor([r["row"] for r in rows])}

    return batch


def _bad_row(collate: Callable, rows: list[dict[str, Any]], error: Exception) -> BaseException:
    """The error of a batch with the number of the row that it comes from, found by trying each alone."""
    if plainly(error) is not error:
        return plainly(error)
    for row in rows:
        try:
            collate([row])
        except Exception as alone:
            return UsageError(f"row {row['row']} (counted from 0): {type(alone).__name__}: {alone}")
    return error
