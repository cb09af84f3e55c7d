"""What does not fit into memory is found before training, and costs nothing but a smaller micro-batch."""

import hashlib
import json
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import sentence
from forks import forked

from hf_tuner import machine
from hf_tuner.errors import EnvironmentFault
from hf_tuner.training import memory

LONG = 60


@pytest.fixture
def long_data(tmp_path: Path) -> Path:
    """512 texts that fill the tiny model's positions, and a few to measure on."""
    import csv

    import numpy as np

    random = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train", 512), ("test", 6)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i in range(count):
                label = ("food", "sport", "weather")[i % 3]
                words = " ".join(sentence(random, label) for _ in range(12)).split()
                writer.writerow([" ".join(words[:LONG]) + f" {i}", label])
    return folder


def train(model: Path, data: Path, folder: Path, **settings: Any) -> None:
    """A short run in this process."""
    from hf_tuner import finetune

    given = {"method": "full", "max_steps": 3, "per_device_train_batch_size": 8, "seed": 3, "bf16": False, "verify": False,
             "probe_rows": 0, "way_in": "random", "save_strategy": "no", **settings}  # fmt: skip
    finetune(model=str(model), dataset=str(data), output_dir=str(folder), **given)


def digest(folder: Path, name: str = "model.safetensors") -> str:
    return hashlib.sha512((folder / name).read_bytes()).hexdigest()


def filled() -> list[torch.Tensor]:
    """Blocks in all the room that other tests left in the heap, so that a limit on what is mapped bites."""
    held: list[torch.Tensor] = []
    for size in (1 << 24, 1 << 20, 1 << 16):
        mapped = machine.mapped()
        while machine.mapped() <= mapped:
            held.append(torch.empty(size, dtype=torch.uint8))
    return held


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_trial_changes_nothing(method: str, tiny_data: Path, tmp_path: Path) -> None:
    """A run with the trial and one without it end in the same bytes, dropout and all."""
    from conftest import make_tiny_model

    tiny = tmp_path / "tiny"
    tiny.mkdir()
    make_tiny_model(tiny, dropout=0.1)
    tried: list[str] = []

    def work(folder: Path, always: bool) -> None:
        plain = memory._fits
        memory._worth_trying = lambda *_: always  # type: ignore[assignment]
        memory._fits = lambda *rest: print("tried") or plain(*rest)  # type: ignore[assignment, func-returns-value]
        train(tiny, tiny_data, folder, method=method, gradient_checkpointing=True)

    for always in (False, True):
        ended = forked(lambda always=always: work(tmp_path / str(always), always))
        assert ended.code == 0, ended.text
        tried.append(str("tried" in ended.text))
    assert tried == ["False", "True"]
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    assert digest(tmp_path / "False", name) == digest(tmp_path / "True", name)


@pytest.mark.fault(16)
def test_a_batch_that_does_not_fit_is_cut_and_the_update_stays_the_same(
    tiny_model: Path, long_data: Path, tmp_path: Path
) -> None:
    """An address-space limit that 512 long rows at once exceed: 512 × 1 becomes less × more, with equal weights."""

    def work(folder: Path, room: int | None) -> None:
        if room is not None:
            plain = memory.fit_in_memory

            def limited(*rest: Any) -> None:
                held = filled()
                resource.setrlimit(resource.RLIMIT_AS, (machine.mapped() + room, resource.RLIM_INFINITY))
                plain(*rest)
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                held.clear()

            import hf_tuner.training.trainer as trainer

            trainer.fit_in_memory = limited  # type: ignore[assignment]
        train(tiny_model, long_data, folder, per_device_train_batch_size=512, optim="sgd", learning_rate=0.1)

    assert forked(lambda: work(tmp_path / "free", None)).code == 0
    ended = forked(lambda: work(tmp_path / "tight", 40_000_000))
    assert ended.code == 0, ended.text
    line = next(line for line in ended.text.splitlines() if line.startswith("  memory "))
    batch, accumulate = (int(word) for word in line.partition("do not fit: ")[2].partition(" instead")[0].split(" × "))
    assert "512 rows at once do not fit" in line and batch < 512 and batch * accumulate == 512
    manifest = json.loads((tmp_path / "tight" / "manifest.json").read_text())
    assert '"rows_per_update": 512' in json.dumps(manifest)
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("free", "tight"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-5, atol=1e-6)


class Hungry:
    """A trial that fits at most so many rows, as `_fits` answers it."""

    def __init__(self, most: int) -> None:
        self.most, self.seen = most, []  # type: ignore[var-annotated]

    def __call__(self, *rest: Any) -> bool:
        self.seen.append(rest[-1])
        return rest[-1] <= self.most


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("asked", "accumulate", "most", "expected"),
    [(32, 1, 32, (32, 1)), (32, 1, 9, (8, 4)), (12, 2, 5, (3, 8)), (7, 3, 6, (1, 21)), (6, 1, 2, (1, 6))],
)
def test_the_update_keeps_its_rows(
    asked: int, accumulate: int, most: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = SimpleNamespace(per_device_train_batch_size=asked, gradient_accumulation_steps=accumulate, world_size=1)
    monkeypatch.setattr(memory, "_worth_trying", lambda *_: True)
    monkeypatch.setattr(memory, "_fits", Hungry(most))
    memory.fit_in_memory(arguments, None, None, None, None)  # type: ignore[arg-type]
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == expected
    assert expected[0] * expected[1] == asked * accumulate


@pytest.mark.fault(16)
def test_one_row_that_does_not_fit_says_what_needs_less(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    def work() -> None:
        memory._worth_trying = lambda *_: True  # type: ignore[assignment]
        memory._fits = Hungry(0)
        train(tiny_model, tiny_data, tmp_path / "run", num_train_epochs=1)

    def told() -> None:
        try:
            work()
        except EnvironmentFault as error:
            print(f"error: {error}")
            raise SystemExit(error.exit_code) from None

    ended = forked(told)
    assert ended.code == 3, ended.text
    error = ended.text[ended.text.index("error:") :]
    assert "one row of " in error and "tokens does not fit into memory" in error
    assert all(word in error for word in ("--max-length", "gradient-checkpointing", "smaller model", "qlora"))


def test_a_fault_in_the_trial_is_not_taken_for_a_lack_of_memory(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def work() -> None:
        memory._worth_trying = lambda *_: True  # type: ignore[assignment]
        memory.to_device = lambda *_: 1 / 0  # type: ignore[assignment]
        train(tiny_model, tiny_data, tmp_path / "run")

    ended = forked(work)
    assert ended.code == 1 and ended.last == "ZeroDivisionError: division by zero"


def test_what_is_free_is_counted_with_the_limits_of_the_process() -> None:
    def work() -> None:
        free = machine.available()
        assert 1e8 < free < float("inf")
        resource.setrlimit(resource.RLIMIT_AS, (machine.mapped() + 50_000_000, resource.RLIM_INFINITY))
        assert machine.available() <= 50_000_000

    assert forked(work).code == 0


@pytest.mark.fault(16)
def test_an_error_of_cuda_is_taken_for_what_it_is(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A stand-in of a GPU with room for six rows: the run trains with four at a time, and as many in an update."""

    def work() -> None:
        plain = memory.to_device

        def small(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
            if len(batch["input_ids"]) > 6:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return plain(batch, device)

        memory._worth_trying = lambda *_: True  # type: ignore[assignment]
        memory.to_device = small
        train(tiny_model, tiny_data, tmp_path / "run", per_device_train_batch_size=16)

    ended = forked(work)
    assert ended.code == 0, ended.text
    assert "  memory    16 rows at once do not fit: 4 × 4 instead, as many rows an update" in ended.text
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["training"]["rows_per_update"] == 16


def test_an_evaluation_that_would_keep_too_much_is_refused_at_its_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from datasets import Dataset

    from hf_tuner.errors import EnvironmentFault
    from hf_tuner.evaluation import loop

    rows = Dataset.from_dict({"length": [3] * 1000})
    batches = []

    def outputs(model: object, batch: dict) -> list:
        batches.append(batch)
        return [np.zeros(1_000_000, np.float32)] * 10

    monkeypatch.setattr(loop, "available", lambda: 1e9)
    with pytest.raises(EnvironmentFault, match=r"keeps up to 4\.0 GB"):
        loop.keep_outputs(torch.nn.Linear(1, 1), rows, lambda r: {}, outputs, 10)
    assert len(batches) == 1
