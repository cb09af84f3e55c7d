"""The model card: what the model does, how well, on what, and code that works when pasted."""

from pathlib import Path
from typing import Any

import yaml

from hf_tuner.config import Run


def card(run: Run, task: Any, report: Any) -> str:
    """README.md of a run folder: front matter that the Hub validates, then the facts of the report."""
    parts = [
        "---\n" + yaml.safe_dump(_front_matter(run, task, report), sort_keys=False, allow_unicode=True) + "---",
        f"# {_name(run.model)} fine-tuned on {_name(run.dataset)} ({run.method})",
        _warning(run),
        _results(report),
        _usage(run, task, report),
        _labels(task),
        "## Proofs\n\n"
        + "\n".join(f"- {'✓' if p['passed'] else '✗'} {p['name']}: {p['detail']}" for p in report.proofs),
        _training(run, report),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _front_matter(run: Run, task: Any, report: Any) -> dict[str, Any]:
    adapter = "adapter_config.json" in report.files
    front: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": task.pipeline,
        "tags": ["hf-tuner", run.method],
        "metrics": sorted({m for scores in report.metrics.values() for m in scores}),
    }
    if not Path(run.model).is_dir() and run.model != "demo":
        front["base_model"] = run.model
        front["base_model_relation"] = "adapter" if adapter else "finetune"
    if not Path(run.dataset).exists() and run.dataset != "demo":
        front["datasets"] = [run.dataset.partition(":")[0].partition("#")[0].partition("@")[0]]
    return front


def _name(source: str) -> str:
    return Path(source).name if source else source


def _warning(run: Run) -> str:
    if run.verify:
        return ""
    return "> **Not verified.** This run was saved with `--no-verify`: nobody reloaded these files and compared predictions."


def _results(report: Any) -> str:
    lines = ["## Results", "", "| split | metric | value | 95 % interval |", "|---|---|---|---|"]
    for split, scores in report.metrics.items():
        for name, score in scores.items():
            if score["value"] is not None:
                interval = f"{score['low']:.4f} – {score['high']:.4f}" if score.get("low") is not None else ""
                lines.append(f"| {split} ({report.rows[split]:,} rows) | {name} | {score['value']:.4f} | {interval} |")
    for name, splits in report.baselines.items():
        for split, scores in splits.items():
            first, score = next(iter(scores.items()))
            if score["value"] is not None:
                lines.append(f"| {split} | {first} of the {name} baseline | {score['value']:.4f} | |")
    return "\n".join(lines)


def _usage(run: Run, task: Any, report: Any) -> str:
    lines = [
        "## Use",
        "",
        "```bash",
        "hf-tuner predict FOLDER --input texts.csv --output out.csv",
        "```",
        "",
        "```python",
        "from hf_tuner import predict",
        "",
        'predict("FOLDER", ["a text", "another"])',
        "```",
    ]
    return "\n".join(lines + (_plain_usage(run, task, report) if _stranger_can_load(run, report) else []))


def _stranger_can_load(run: Run, report: Any) -> bool:
    """An adapter on a base that others have."""
    return "adapter_config.json" in report.files and run.model != "demo" and not Path(run.model).is_dir()


def _plain_usage(run: Run, task: Any, report: Any) -> list[str]:
    names = dict(enumerate(task.labels.names))
    extra = f", num_hidden_layers={report.details['layers']}" if report.details.get("pooling") else ""
    labels = f"id2label={names}" if names else "num_labels=1"
    return [
        "",
        "Without hf-tuner:",
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {task.auto_model}, AutoTokenizer, pipeline",
        "",
        f'base = {task.auto_model}.from_pretrained("{run.model}", {labels}{extra})',
        'model = PeftModel.from_pretrained(base, "FOLDER")',
        'classify = pipeline("text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained("FOLDER"))',
        "```",
    ]


def _labels(task: Any) -> str:
    names = task.labels.names
    return "## Labels\n\n" + ("\n".join(f"{i}. `{n}`" for i, n in enumerate(names)) if names else "a number")


def _training(run: Run, report: Any) -> str:
    rows = ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
    versions = ", ".join(f"{k} {v}" for k, v in report.versions.items())
    return "\n".join(
        [
            "## Training",
            "",
            f"- method: {run.method}; {report.parameters['trainable']:,} of {report.parameters['total']:,} parameters trained",
            f"- data: {_name(run.dataset)} ({rows} rows)",
            f"- seed {run.seed}; every setting is in `run.yaml`, every number in `report.json`",
            f"- {versions}",
        ]
    )
