"""evaluate: measure a saved run on a data set, with intervals."""

import json
from collections.abc import Sequence

from hf_tuner.cli._words import Words
from hf_tuner.console import say, table


def main(words: Sequence[str]) -> None:
    """hf-tuner evaluate RUN [--dataset …] [--split test] [--output scores.json]"""
    parser = Words("evaluate", __doc__).run_folder().code()
    parser.add_argument("--dataset", help="file, folder or Hub id (default: the one the run was trained on)")
    parser.add_argument("--dataset-config", help="configuration of a Hub dataset")
    parser.add_argument("--split", help="which split to measure on (default: test, else validation)")
    parser.add_argument("--columns", help='which column is what: "text=review,label=stars"')
    parser.add_argument("--batch-size", type=int, help="rows of a batch (default: what the task wants)")
    parser.add_argument("--output", help="write the scores as JSON to this file")
    seen = parser.read(words)
    from hf_tuner.evaluation.evaluate import evaluate

    split, rows, scores = evaluate(seen.run, dataset=seen.dataset, dataset_config=seen.dataset_config, split=seen.split,
                                   columns=seen.columns, batch_size=seen.batch_size)  # fmt: skip
    say(f"{seen.run} on {rows:,} rows of {split}")
    beside = any("base" in score for score in scores.values())
    heads = ("metric", "value", "95 % interval", *(["base"] if beside else []))
    say(
        table(
            heads,
            [(n, _number(s["value"]), _range(s), _number(s.get("base")))[: len(heads)] for n, s in scores.items()],
        )
    )
    if seen.output:
        from pathlib import Path

        from hf_tuner.models.save import write_text

        write_text(Path(seen.output), json.dumps({split: scores}, indent=2) + "\n")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _range(score: dict) -> str:
    return "" if score.get("low") is None else f"{score['low']:.4f} – {score['high']:.4f}"
