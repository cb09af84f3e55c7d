"""A Trainer whose checkpoints can be trusted, and whose resumed run is the run that was never interrupted."""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import TrainerState

from hf_tuner.console import is_main, say
from hf_tuner.errors import ArtifactError
from hf_tuner.folder import CHECKPOINT, newest_checkpoint
from hf_tuner.models.save import write_text
from hf_tuner.training.averaging import Average
from hf_tuner.training.checkpoints import Store, verify
from hf_tuner.training.signals import CleanStop, EvaluationStopped
from hf_tuner.training.tensors import load_tensors, save_tensors

STATE = "trainer_state.json"


@dataclass
class Ledger:
    """What the Trainer forgets between two sessions of a run. One file per process and checkpoint."""

    loss: float = 0.0
    """Sum of the losses since the last log entry."""
    losses: float = 0.0
    """Sum of the losses before it."""
    logged: int = 0
    """Step of the last log entry."""
    seconds: float = 0.0
    """Time spent training in earlier sessions."""
    owes_evaluation: bool = False
    """The evaluation after this step was cut short, and is made up for before training goes on."""
    proofs: list[dict[str, Any]] = field(default_factory=list)
    """What was proved by then: the first steps are not seen again."""

    @staticmethod
    def file(checkpoint: Path, rank: int) -> Path:
        """The ledger of a process in a checkpoint."""
        return checkpoint / f"ledger_{rank}.json"

    @classmethod
    def read(cls, checkpoint: Path, rank: int) -> "Ledger":
        """The ledger of a process; that of the first where another number of processes goes on."""
        path = cls.file(checkpoint, rank)
        path = path if path.is_file() else cls.file(checkpoint, 0)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged ({error})") from error


class ResumableTrainer(Trainer):
    """Saves through a `Store`, and goes on bit for bit: losses, time, evaluations and the best checkpoint included."""

    method: Any
    """Module of the run's method."""
    store: Store
    stop: CleanStop
    ledger: Ledger
    started: float
    average: Average | None = None
    aside: Path | None = None
    left_at: int | None = None

    def complete(self, store: Store, checkpoint: str | None, stop: CleanStop) -> None:
        """Train from a verified checkpoint, or from the start, to the end; nothing when the checkpoint is the end.

        When `stop` heard a signal, training ends at the next step boundary, with a checkpoint.
        """
        self.store, self.stop, self.started = store, stop, time.monotonic()
        # The Trainer would delete whatever is called checkpoint-N; the store does not.
        self.args.save_total_limit = None
        self.ledger = Ledger.read(Path(checkpoint), self.args.process_index) if checkpoint else Ledger()
        self.add_callback(stop)
        self.add_callback(_TakeUp(self))
        with self.watched():
            if checkpoint and self._is_end(Path(checkpoint)):
                self._take(Path(checkpoint))
            else:
                self.train(resume_from_checkpoint=checkpoint)

    def watched(self) -> AbstractContextManager[Any]:
        """What stands around training; for a subclass to say."""
        return nullcontext()

    def seconds(self) -> float:
        """Time spent training so far, in all sessions."""
        return self.ledger.seconds + time.monotonic() - self.started

    def newest(self) -> Path | None:
        """The newest checkpoint of the run."""
        return newest_checkpoint(self.store.folder)

    # --- saving

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.aside) if self.aside else str(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, history = self.state.global_step, self.state.log_history
        # The log is in log.jsonl: here it would be written again with every save, longer each time.
        self.state.log_history = []
        try:
            with self.store.writing(step) as self.aside:
                super()._save_checkpoint(model, trial)
                made = self.aside / f"{CHECKPOINT}{step}"
                ledger = json.dumps(asdict(self._ledger()))
                Ledger.file(made, self.args.process_index).write_text(ledger, encoding="utf-8")
                if self.args.should_save and not self._is_sharded():
                    save_tensors(self.model, self.method, made)
                    if self.average is not None:
                        self.average.save(made)
        finally:
            self.aside, self.state.log_history = None, history
        self._name_best()
        self.store.rotate(step, self.state.best_global_step)

    def _ledger(self) -> Ledger:
        return Ledger(
            loss=float(self._tr_loss),
            losses=self._total_loss_scalar,
            logged=self._globalstep_last_logged,
            seconds=self.seconds(),
            owes_evaluation=self.ledger.owes_evaluation,
            proofs=[asdict(p) for c in self.callback_handler.callbacks for p in getattr(c, "proofs", [])]
            or self.ledger.proofs,
        )

    def _name_best(self) -> None:
        """Where the best checkpoint lies now: the Trainer notes a path, which may have moved since."""
        best = self.state.best_global_step
        path = self.store.folder / f"{CHECKPOINT}{best}" if best else None
        self.state.best_model_checkpoint = str(path) if path and path.is_dir() else None

    def _is_sharded(self) -> bool:
        return bool(self.is_deepspeed_enabled or self.is_fsdp_enabled)

    # --- going on

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_more(Path(resume_from_checkpoint))

    def _load_more(self, checkpoint: Path) -> None:
        """What the Trainer does not know of: tensors beside an adapter's own file, and the average."""
        if not self._is_sharded():
            load_tensors(self.model, self.method, checkpoint)
        if self.average is not None:
            self.average.load(checkpoint)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        started = super()._init_training_state(*args, **kwargs)
        self._remember()
        return started

    def _remember(self) -> None:
        """The log up to the step that was reached (what came after it comes again), and the best checkpoint."""
        path = self.store.folder / "log.jsonl"
        entries = read_log(path, self.state.global_step)
        if self.ledger.owes_evaluation:  # it may have been made once already, before a kill
            entries = [e for e in entries if e["step"] < self.state.global_step or "eval_runtime" not in e]
        self.state.log_history = [{k: v for k, v in entry.items() if k != "time"} for entry in entries]
        if is_main() and path.is_file():
            write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))
        self._name_best()

    def _is_end(self, checkpoint: Path) -> bool:
        # The Trainer would make one more step before it sees that there was nothing left to do.
        *_, planned = self.set_initial_training_values(self.args, self.get_train_dataloader())
        return int(TrainerState.load_from_json(str(checkpoint / STATE)).global_step) >= planned

    def _take(self, checkpoint: Path) -> None:
        say("  resume    training was complete; measuring and saving are left")
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / STATE))
        self._remember()
        self._settle()
        mean = (self.ledger.losses + self.ledger.loss) / max(1, self.state.global_step)
        self.log({"train_runtime": self.ledger.seconds, "total_flos": self.state.total_flos, "train_loss": mean})
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint:
            self._load_best_model()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        # Exactly here the uninterrupted run made it: evaluating draws a random number of its own.
        self._settle()

    def _settle(self) -> None:
        """Make the evaluation that was cut short."""
        if not self.ledger.owes_evaluation:
            return
        try:
            self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)
        except EvaluationStopped:  # again; the checkpoint still says so
            self.stop.check(self.newest(), self.state.global_step)
        self.ledger.owes_evaluation = False

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.stop.agreed():
            self._leave(*args, **kwargs)
            return
        random = torch.get_rng_state()
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except EvaluationStopped:
            torch.set_rng_state(random)  # the evaluation that makes up for it draws its number anew
            self.ledger.owes_evaluation = True
            self._leave(*args, **kwargs)

    def _leave(self, *args: Any, **kwargs: Any) -> None:
        """Save at this step boundary and end training. The Trainer comes here a second time, as if the epoch were over."""
        control, first = self.control, self.left_at is None
        over = float(self.state.epoch or 0).is_integer()
        self.ledger.owes_evaluation |= control.should_evaluate and (first or over)
        control.should_evaluate = control.should_save = False
        control.should_log &= first or over
        super()._maybe_log_save_evaluate(*args, **kwargs)  # the log entry that is due
        if first or over:
            self.args.save_only_model = False  # this one is there to be gone on from
            self._save_checkpoint(self.model, None)
        self.left_at, control.should_training_stop = self.state.global_step, True

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        scheduler: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        asked = list(getattr(scheduler, "base_lrs", []))
        super()._load_optimizer_and_scheduler(checkpoint)
        if asked and asked != list(scheduler.base_lrs):
            # What was saved would silently win over a rate that --allow-changed let in.
            for group, new, old in zip(self.optimizer.param_groups, asked, scheduler.base_lrs, strict=True):
                group["initial_lr"], group["lr"] = new, group["lr"] * new / old if old else new
            scheduler.base_lrs = asked
            scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _load_best_model(self) -> None:
        path = Path(str(self.state.best_model_checkpoint))
        verify(path)
        super()._load_best_model()
        self._load_more(path)
        say(
            f"  best      {path.name} ({self.args.metric_for_best_model} {self.state.best_metric:.4f}), loaded and verified"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the time and speed of the whole run in its last entry, not of this session alone."""
        if "train_steps_per_second" in logs and self.ledger.seconds:
            here = logs["train_runtime"]
            logs["train_runtime"] = round(here + self.ledger.seconds, 4)
            for key in ("train_samples_per_second", "train_steps_per_second"):
                logs[key] = round(logs[key] * here / logs["train_runtime"], 3)
        super().log(logs, start_time)


class _TakeUp(TrainerCallback):
    """Puts back the running sums that the Trainer starts at zero."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer, ledger = self.trainer, self.trainer.ledger
        trainer._tr_loss.fill_(ledger.loss)
        trainer._total_loss_scalar = ledger.losses
        trainer._globalstep_last_logged = ledger.logged
        trainer._initial_global_step = 0


def read_log(path: Path, step: int) -> list[dict[str, Any]]:
    """The entries of log.jsonl up to a step; a line that was cut short is left out, and so is the summary of the end."""
    entries = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
            if entry["step"] <= step and "train_runtime" not in entry:
                entries.append(entry)
        except (ValueError, KeyError, TypeError):
            continue
    return entries
