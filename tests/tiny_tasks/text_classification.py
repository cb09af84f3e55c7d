"""Three classes of short sentences, and a BERT."""

from pathlib import Path

from conftest import make_tiny_model, write_rows

from tiny_tasks import Tiny


def make(folder: Path) -> Tiny:
    """20 rows to train on (the last update of 8 is ragged), 8 to measure."""
    for name in ("model", "data"):
        (folder / name).mkdir()
    write_rows(folder / "data" / "train.csv", 20)
    write_rows(folder / "data" / "test.csv", 8, seed=5)
    return Tiny(make_tiny_model(folder / "model"), folder / "data")
