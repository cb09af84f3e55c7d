"""Proof that training trains: before the first step, and just after the first ones.

Each proof is a plain record {name, passed, detail}; a failed one stops the run with its cause.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from hf_tuner.console import count, table
from hf_tuner.errors import ProofError
from hf_tuner.models.load import bare_model

LOOK_AT_STEP = 3
"""After so many updates, what should have moved must have moved (warm-up makes the first one tiny)."""

SEEN = 1e-6
"""Gradients below this share of a tensor's largest value are not counted as having reached it."""

ORIGINAL, FROZEN_COPY = ".original_module.", "head (frozen copy)"
"""How peft calls what it keeps beside a module that trains, and what it is called on the screen."""


@dataclass(frozen=True)
class Proof:
    """One thing that was proved, or not."""

    name: str
    passed: bool
    detail: str


def require(proofs: Iterable[Proof]) -> list[Proof]:
    """The proofs, or ProofError with the cause of every one that failed."""
    proofs = list(proofs)
    failed = [p for p in proofs if not p.passed]
    if failed:
        raise ProofError("\n".join(f"{p.name}: {p.detail}" for p in failed))
    return proofs


ADAPTER = ".default."
"""What peft names the weights of the one adapter that there is: lora_A.default.weight, prompt_encoder.default."""


def before_training(model: Any, saves: str) -> list[Proof]:
    """Head trainable and saved, targets matched, trainable weights in float32, something trains at all."""
    notes = model.tuner_notes
    bare = bare_model(model)
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    frozen_head = [n for n, p in _active_head(bare, notes["head"]) if not p.requires_grad]
    unsaved = _unsaved(model, notes["new_head"]) if saves == "adapter" else []
    half = [n for n, p in trainable if p.is_floating_point() and p.dtype != torch.float32]
    new = ", ".join(notes["new_head"]) or "none (the checkpoint brings its own)"
    return [
        Proof(
            "something trains", bool(trainable), f"{count(sum(p.numel() for _, p in trainable))} trainable parameters"
        ),
        Proof("new weights train", not frozen_head, _detail(frozen_head, "frozen", f"new modules: {new}")),
        Proof("new weights will be saved", not unsaved, _detail(unsaved, "left out of the saved files", "all of them")),
        Proof("targets matched", *_targets(model)),
        Proof("trainable weights are float32", not half, _detail(half, "in half precision", "all of them")),
    ]


def trainable_table(model: Any) -> str:
    """Which group of modules is frozen, adapted or trained in full; how many parameters each has."""
    head = model.tuner_notes["head"]
    groups: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        group = groups.setdefault(_group(name, head), [0, 0])
        group[0] += parameter.numel()
        group[1] += parameter.numel() if parameter.requires_grad else 0
    rows = [
        (name, count(total), count(trains), _state(name, total, trains)) for name, (total, trains) in groups.items()
    ]
    total, trains = (sum(g[i] for name, g in groups.items() if name != FROZEN_COPY) for i in (0, 1))
    rows.append(("all", count(total), count(trains), f"{trains / max(1, total):.2%}"))
    return table(("group", "parameters", "trainable", "state"), rows)


def total_parameters(model: Any) -> int:
    """Parameters of a model, without the frozen copy that peft keeps of a head that trains."""
    return sum(p.numel() for name, p in model.named_parameters() if ORIGINAL not in name)


def saved_bytes(model: Any, saves: str) -> int:
    """Bytes of weights that a save will write: an adapter's own (with the modules it replaces), or the whole model's."""
    kept = [p for n, p in model.named_parameters() if saves == "model" or p.requires_grad or ".modules_to_save." in n]
    return sum(p.numel() * p.element_size() for p in kept)


class Movement(TrainerCallback):
    """After the first updates: every trainable tensor that gradients reached moved, and no frozen one did."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.proofs: list[Proof] = []
        self.start: dict[str, torch.Tensor] = {}
        self.trains: set[str] = set()
        self.touched: set[str] = set()
        self.reached: set[str] = set()
        self.at_most = LOOK_AT_STEP

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remember how every tensor starts."""
        self.at_most = min(LOOK_AT_STEP + state.global_step, state.max_steps)
        self.trains = {n for n, p in self.model.named_parameters() if p.requires_grad}
        self.start = {n: _mark(p, n in self.trains) for n, p in self.model.named_parameters()}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note which tensors gradients reach."""
        if self.start:
            for name, parameter in self.model.named_parameters():
                largest = _largest_gradient(parameter)
                if largest > 0:
                    self.touched.add(name)
                # Large enough that plain SGD could change the tensor in float32.
                if largest > SEEN * (float(parameter.detach().abs().max()) + 1e-3):
                    self.reached.add(name)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge, once, after the first updates. Raises ProofError."""
        if state.global_step != self.at_most or not self.start:
            return
        now = dict(self.model.named_parameters())
        changed = {n for n, p in now.items() if not torch.equal(_mark(p, n in self.trains), self.start[n])}
        frozen = {n for n, p in now.items() if n not in self.trains and not p.requires_grad}
        rate = max((g["lr"] for g in getattr(kwargs.get("optimizer"), "param_groups", [])), default=1.0)
        # A weight near 1 cannot show a step of 1e-9 in float32.
        able = {n for n in self.trains if rate > SEEN * float(now[n].detach().abs().max())}
        self.start = {}
        self.proofs = require(self._judge(changed, frozen, able & self.reached, f"after {state.global_step} updates"))

    def _judge(self, changed: set[str], frozen: set[str], must: set[str], when: str) -> list[Proof]:
        still = sorted(must - changed)
        unreached = sorted(self.trains - self.touched)
        # A bias may meet a gradient of exactly zero, in balanced batches; the weight beside it does not.
        layers = {n.rpartition(".")[0] for n in self.touched}
        new = [
            n
            for n in unreached
            if any(f".{h}." in f".{n}" for h in self.model.tuner_notes["new_head"])
            and n.rpartition(".")[0] not in layers
        ]
        note = f"; no gradient reaches {', '.join(unreached[:2])}" if unreached else ""
        moved = sorted(frozen & changed)
        count_moved = f"{len(self.trains & changed)} of {len(self.trains)} tensors {when}{note}"
        return [
            Proof(
                "trainable weights moved", not (still or new), _detail(still or new, f"stood still {when}", count_moved)
            ),
            Proof(
                "frozen weights did not move",
                not moved,
                _detail(moved, f"moved {when}", f"{len(frozen)} tensors {when}"),
            ),
        ]


def _largest_gradient(parameter: torch.Tensor) -> float:
    gradient = parameter.grad
    return float(gradient.abs().max()) if gradient is not None and gradient.numel() else 0.0


def _mark(parameter: torch.Tensor, whole: bool) -> torch.Tensor:
    """Enough of a tensor to see whether it changed: all of a trainable one, a digest of a frozen one."""
    values = parameter.detach()
    if whole:
        return values.clone()
    flat = values.flatten()
    return flat[:: max(1, len(flat) // 1024)].clone()


def _active_head(bare: Any, head: tuple[str, ...]) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters of the head that are used: the trainable copy inside a peft wrapper, or the plain ones."""
    found = []
    for name, parameter in bare.named_parameters():
        below = any(f".{h}." in f".{name}." for h in head)
        if below and ORIGINAL not in name and "lora_" not in name:
            found.append((name, parameter))
    return found


def _unsaved(model: Any, new_head: tuple[str, ...]) -> list[str]:
    from peft import get_peft_model_state_dict

    keys = list(get_peft_model_state_dict(model, save_embedding_layers=False))
    return [h for h in new_head if not any(f".{h}." in f".{k}" for k in keys)]


def _targets(model: Any) -> tuple[bool, str]:
    """Whether every name the method gave to peft matched a module, and how many modules are adapted."""
    matched = getattr(getattr(model, "base_model", None), "targeted_module_names", None)
    if not matched:
        return True, "the method adapts no modules" if hasattr(
            model, "peft_config"
        ) else "the method trains the model itself"
    given = model.peft_config["default"].target_modules
    names = [] if isinstance(given, str) else sorted(given or ())
    left = [name for name in names if not any(f".{m}".endswith(f".{name}") for m in matched)]
    return not left, f"{len(matched)} modules adapted" + (f"; nothing matches {', '.join(left[:3])}" if left else "")


def _group(name: str, head: tuple[str, ...]) -> str:
    plain = name.replace("base_model.model.", "", 1)
    if any(f".{h}." in f".{plain}." for h in head):
        return FROZEN_COPY if ORIGINAL in plain else "head"
    if ADAPTER in f".{name}.":
        return "adapter"
    return "embeddings" if "embed" in plain else "backbone"


def _state(name: str, total: int, trains: int) -> str:
    if not trains:
        return "not counted" if name == FROZEN_COPY else "frozen"
    return "trained in full" if trains == total else "trained in part"


def _detail(bad: list[str], what: str, good: str) -> str:
    return f"{len(bad)} {what}: {', '.join(bad[:4])}" if bad else good
