"""predict: answers for every row of a file: labels by name, spans, choices, texts, with their scores."""

from collections.abc import Sequence
from pathlib import Path

from hf_tuner.cli._words import Words
from hf_tuner.console import say
from hf_tuner.errors import UsageError


def main(words: Sequence[str]) -> None:
    """hf-tuner predict RUN --input texts.csv --output out.csv [--probabilities]"""
    parser = Words("predict", __doc__).run_folder().code()
    parser.add_argument(
        "--input",
        required=True,
        help="csv, tsv, json, jsonl, parquet or conll file with the task's columns, a picture, or a folder of them",
    )
    parser.add_argument(
        "--output", required=True, help="CSV or .jsonl to write: the input's columns, prediction, score"
    )
    parser.add_argument("--columns", help='which column is what: "text=review"')
    parser.add_argument("--encoding", help="encoding of the input, such as latin-1")
    parser.add_argument("--separator", help="column separator of the input")
    parser.add_argument("--probabilities", action="store_true", help="add one column per class")
    parser.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be used")
    parser.add_argument("--batch-size", type=int, help="rows of a batch (default: what the task wants)")
    parser.add_argument("--set", default="", help='settings of the task, for these answers only: "max_new_tokens=40"')
    seen = parser.read(words)
    target = Path(seen.output)
    if not target.parent.is_dir():
        raise UsageError(f"--output {target}: the folder {target.parent} does not exist")
    if target.suffix.lower() not in (".csv", ".jsonl", ".ndjson", ""):
        raise UsageError(
            f"--output {target}: predictions are written as CSV or JSON lines; name the file .csv or .jsonl"
        )
    if target.resolve() == Path(seen.input).resolve():
        raise UsageError(f"--output {target} is the input; choose another name")
    from hf_tuner.data.picture_rows import usable
    from hf_tuner.data.rows import read_rows, task_columns
    from hf_tuner.evaluation.predict import predict, write_predictions
    from hf_tuner.hub.manifest import read_manifest
    from hf_tuner.hub.pull import local_run
    from hf_tuner.models.restore import restore_task

    folder = local_run(seen.run)
    task = restore_task(read_manifest(folder))
    settings = _settings(seen.set)
    task.answering(**settings)
    _, rows = read_rows(seen.input, encoding=seen.encoding, separator=seen.separator)
    twice = [name for name in ("prediction", "score") if name in rows.column_names]
    if twice:
        raise UsageError(
            f'--input {seen.input} has a column "{twice[0]}" already; rename it, so that the answers have a place'
        )
    ready = task_columns(rows, task, seen.columns, answers=False)
    if shown := [name for name in task.pictures if name in ready.column_names]:
        index = usable(ready, shown, skip_bad=seen.skip_bad)
        rows, ready = rows.select(index), ready.select(index)
    answers = predict(folder, ready, seen.batch_size, **settings)
    write_predictions(target, rows, answers, seen.probabilities)
    say(f"{len(answers):,} rows → {seen.output}")


def _settings(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    bad = [name for name, sign, _ in pairs if not sign]
    if bad:
        raise UsageError(
            f'--set {text}: expected name=value[,name=value], such as max_new_tokens=40; "{bad[0]}" has no ='
        )
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}
