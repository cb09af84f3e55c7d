"""What is saved is what was measured: reload in a fresh process and compare predictions on held rows.

python -m hf_tuner.evaluation.verify FOLDER ROWS.json LOGITS.npy [BASE]
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_tuner.training.proofs import Proof

HELD = 256
"""Rows that are compared."""
SECONDS = 900


def held_rows(rows: Any, count: int = HELD) -> Any:
    """Up to `count` rows spread evenly over a split, with their text columns only."""
    index = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return rows.select(sorted(set(index.tolist()))).remove_columns([c for c in rows.column_names if c == "label"])


def sample_rows(task: Any) -> Any:
    """Rows of the task's own, to compare two models on where the data is not at hand."""
    from datasets import Dataset

    return Dataset.from_list(task.samples())


def reloaded_logits(folder: Path, rows: Any, base: str | None = None) -> np.ndarray:
    """Logits [rows, classes] of what stands in `folder`, computed by a process that knows nothing else.

    `base` says where an adapter's base lies when the folder itself does not.
    """
    with tempfile.TemporaryDirectory() as aside:
        texts, logits = Path(aside) / "rows.json", Path(aside) / "logits.npy"
        texts.write_text(json.dumps(rows.to_list()), encoding="utf-8")
        # -P: a torch.py in the folder one happens to stand in is not torch.
        command = [sys.executable, "-P", "-m", "hf_tuner.evaluation.verify", str(folder), str(texts), str(logits)]
        command += [base] if base else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=_alone(), check=False)
        if done.returncode or not logits.is_file():
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(reason)
        return np.load(logits, allow_pickle=False)


def same_predictions(measured: np.ndarray, folder: Path, rows: Any, tolerance: float, name: str = "saved = measured",
                     base: str | None = None) -> Proof:  # fmt: skip
    """Proof that `folder`, reloaded, gives the logits that were measured.

    `tolerance` is relative to the logits' scale; 0 asks for the same bits. `base` as in `reloaded_logits`.
    """
    try:
        again = reloaded_logits(folder, rows, base)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Proof(name, False, f"{folder} cannot be reloaded: {error}")
    return compare(name, measured, again, tolerance)


def compare(name: str, measured: np.ndarray, again: np.ndarray, tolerance: float) -> Proof:
    """Compare two sets of logits [rows, classes]."""
    if measured.shape != again.shape:
        return Proof(name, False, f"shapes differ: {measured.shape} was measured, {again.shape} came back")
    scale = float(np.abs(measured).max()) or 1.0
    worst = float(np.abs(measured - again).max())
    agree = float((measured.argmax(1) == again.argmax(1)).mean())
    passed = bool(worst <= tolerance * scale)
    exact = "the same bits" if worst == 0 else f"largest difference {worst:.1e} of a scale of {scale:.1f}"
    return Proof(name, passed, f"{len(measured)} rows in a fresh process: {exact}, {agree:.1%} same answers")


def _alone() -> dict[str, str]:
    """The environment without the variables that would make the new process a rank of this run."""
    import os

    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
    drop = {*ranks, *(k for k in os.environ if k.startswith(("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "DEEPSPEED_")))}
    return {k: v for k, v in os.environ.items() if k not in drop}


def main(words: Sequence[str]) -> None:
    """Reload FOLDER (its base from BASE), read ROWS.json, write LOGITS.npy."""
    from datasets import Dataset

    from hf_tuner.evaluation.predict import logits_of
    from hf_tuner.models.restore import restore

    folder, rows, logits = (Path(w) for w in words[:3])
    saved = restore(folder, base=words[3] if len(words) > 3 else None)
    data = Dataset.from_list(json.loads(rows.read_text(encoding="utf-8")))
    np.save(logits, logits_of(saved, data))


if __name__ == "__main__":
    main(sys.argv[1:])
