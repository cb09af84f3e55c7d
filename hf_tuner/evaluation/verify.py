"""What is saved is what was measured: reload in a fresh process and compare predictions on held rows.

python -m hf_tuner.evaluation.verify FOLDER ROWS KEPT.npz [BASE]
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_tuner.data.load import no_bars
from hf_tuner.evaluation.loop import Kept
from hf_tuner.training.proofs import Proof

HELD = 256
"""Rows that are compared."""
SECONDS = 900


def held_rows(rows: Any, targets: Sequence[str] = ("label",), count: int = HELD) -> Any:
    """Up to `count` rows spread evenly over a split, without the columns that hold answers (`targets`)."""
    index = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return rows.select(sorted(set(index.tolist()))).remove_columns([c for c in rows.column_names if c in targets])


def sample_rows(task: Any) -> Any:
    """Rows of the task's own, to compare two models on where the data is not at hand."""
    from datasets import Dataset

    return Dataset.from_list(task.samples())


def reloaded(folder: Path, rows: Any, base: str | None = None) -> Kept:
    """What the task keeps of `rows` with what stands in `folder`, computed by a process that knows nothing else.

    `base` says where an adapter's base lies when the folder itself does not.
    """
    with tempfile.TemporaryDirectory() as aside:
        given, result = Path(aside) / "rows", Path(aside) / "kept.npz"
        with no_bars():
            rows.save_to_disk(str(given))
        failed, errors = apart([str(folder), str(given), str(result), *([base] if base else [])], _alone())
        if failed or not result.is_file():
            raise RuntimeError((errors.strip().splitlines() or ["no message"])[-1])
        with np.load(result, allow_pickle=False) as saved:
            return [saved[f"row{number}"] for number in range(len(saved.files))]


def apart(words: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run `main` with `words` in a process of its own: its exit code, and what it printed as errors."""
    # -P: a torch.py in the folder one happens to stand in is not torch.
    command = [sys.executable, "-P", "-m", "hf_tuner.evaluation.verify", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
    return done.returncode, done.stderr


def same_predictions(measured: Kept, folder: Path, rows: Any, tolerance: float, name: str = "saved = measured",
                     base: str | None = None, roughly: Callable[[Kept], Kept] = list) -> Proof:  # fmt: skip
    """Proof that `folder`, reloaded, gives what was measured.

    `tolerance` is relative to the scale of the numbers; 0 asks for the same bits. `base` as in `reloaded`. With a tolerance,
    what is compared is what `roughly` (a task's) makes of both.
    """
    try:
        again = reloaded(folder, rows, base)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Proof(name, False, f"{folder} cannot be reloaded: {error}")
    return compare(name, *((roughly(measured), roughly(again)) if tolerance else (measured, again)), tolerance)


def compare(name: str, measured: Sequence[np.ndarray], again: Sequence[np.ndarray], tolerance: float) -> Proof:
    """Compare what was kept of the same rows twice, one array a row.

    Numbers may differ by `tolerance` of their scale; generated tokens may only where that is more than 0, and in one row of
    fifty at most: one rounding can turn a sentence. Of class maps one pixel of a thousand may.
    """
    shapes = [[row.shape for row in kept] for kept in (measured, again)]
    whole = bool(measured) and all(np.issubdtype(row.dtype, np.integer) for row in measured)
    if len(measured) != len(again) or (not whole and shapes[0] != shapes[1]):
        return Proof(name, False, f"shapes differ: {_shape(measured)} was measured, {_shape(again)} came back")
    if whole and shapes[0] == shapes[1] and all(len(shape) == 2 for shape in shapes[0]):
        alike = sum(int((a == b).sum()) for a, b in zip(measured, again, strict=True))
        share = alike / max(1, sum(row.size for row in measured))
        passed = share == 1 or (tolerance > 0 and share >= 0.999)
        return Proof(name, passed, f"{len(measured)} rows in a fresh process: {share:.2%} of the pixels alike")
    if whole:
        equal = float(np.mean([np.array_equal(a, b) for a, b in zip(measured, again, strict=True)]))
        passed = equal == 1 or (tolerance > 0 and equal >= 0.98)
        return Proof(name, passed, f"{len(measured)} rows in a fresh process: {equal:.1%} the same answers")
    left, right = (np.concatenate([np.ravel(row) for row in kept]).astype(np.float64) for kept in (measured, again))
    scale = float(np.abs(left).max()) or 1.0
    worst = float(np.abs(left - right).max())
    agree = np.mean([a.size == 0 or a.argmax() == b.argmax() for a, b in zip(measured, again, strict=True)])
    exact = "the same bits" if worst == 0 else f"largest difference {worst:.1e} of a scale of {scale:.1f}"
    passed = bool(worst <= tolerance * scale)
    return Proof(name, passed, f"{len(measured)} rows in a fresh process: {exact}, {agree:.1%} same answers")


def _shape(kept: Sequence[np.ndarray]) -> str:
    return f"{len(kept)} rows of {sorted({row.shape for row in kept})[:3]}"


def _alone() -> dict[str, str]:
    """The environment without the variables that would make the new process a rank of this run."""
    import os

    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
    drop = {*ranks, *(k for k in os.environ if k.startswith(("TORCHELASTIC_", "ACCELERATE_", "FSDP_", "DEEPSPEED_")))}
    return {k: v for k, v in os.environ.items() if k not in drop}


def main(words: Sequence[str]) -> None:
    """Reload FOLDER (its base from BASE), read ROWS (a saved data set), write KEPT.npz."""
    from datasets import load_from_disk

    from hf_tuner.evaluation.predict import kept_of
    from hf_tuner.models.restore import restore

    folder, rows, target = (Path(w) for w in words[:3])
    saved = restore(folder, base=words[3] if len(words) > 3 else None)
    kept, _ = kept_of(saved, load_from_disk(str(rows)))
    named: dict[str, Any] = {f"row{number}": row for number, row in enumerate(kept)}
    np.savez(target, **named)


if __name__ == "__main__":
    main(sys.argv[1:])
