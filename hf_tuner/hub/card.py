"""The model card: what a run does, how well, on what, code that works when pasted, and how to repeat it.

Everything in it comes out of the run's folder, so that it can be written again when the run goes to the Hub. Names
and labels are strangers' text: in the front matter they are plain one-line values, below it they are code spans or
escaped (see `hf_tuner.hub.markdown`), and none is longer than a line.
"""

import shlex
from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from hf_tuner import catalog
from hf_tuner.console import count, duration
from hf_tuner.hub.address import parse_address
from hf_tuner.hub.facts import Data, Facts, hub_id, named, public, read_facts
from hf_tuner.hub.markdown import code, fenced, line, table, text
from hf_tuner.hub.usage import usage
from hf_tuner.models.restore import task_class
from hf_tuner.report import wording
from hf_tuner.report.table import headline_split, verdict

__all__ = ["Facts", "card", "front_matter", "in_progress", "read_facts"]

HUB_METRICS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "macro_f1": ("f1", {"average": "macro"}),
    "micro_f1": ("f1", {"average": "micro"}),
    "weighted_f1": ("f1", {"average": "weighted"}),
    "mcc": ("matthews_correlation", None),
    "pearson": ("pearsonr", None),
    "spearman": ("spearmanr", None),
}
"""Our names that the Hub's metrics have another word for, and the arguments that make them the same number."""
SHOWN_LABELS = 100
SMALL = 200
"""Rows of a split below which the card says that the split is small."""
OWN = ("weight_decay", "warmup_steps", "lr_scheduler_type", "optim", "max_steps", "gradient_accumulation_steps")
"""Settings of TrainingArguments that are shown when they were given."""
PLAIN = ("optimizer", "loss", "class_weights", "way_in", "dtype", "seed")
BASELINES = {
    "probe": "a linear probe on the frozen base model",
    "before": "the model before training",
    "majority": "always giving the commonest answer",
    "chance": "guessing",
    "lead": "giving the first sentences",
    "typical caption": "giving every picture the most typical caption",
    "copy": "copying the input",
}


def card(facts: Facts) -> str:
    """README.md of a finished run: front matter that the Hub validates, then everything one should know before use."""
    parts = [
        _dumped(front_matter(facts)),
        f"# {code(facts.base_name)} fine-tuned on {code(facts.data().name)} ({text(facts.manifest.method, 40)})",
        _warning(facts),
        _summary(facts),
        "## Results",
        _results(facts),
        usage(facts),
        _labels(facts),
        "## Training data",
        _training_data(facts),
        "## Training",
        _training(facts),
        "## Limits",
        _limits(facts),
        "## Proofs",
        _proofs(facts),
        "## How to repeat this run",
        _repeat(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(facts: Facts) -> dict[str, Any]:
    """The card's metadata, as the Hub reads it; `ModelCard(card(facts)).data` gives it back."""
    manifest = facts.manifest
    results = _eval_results(facts)
    front: dict[str, Any] = {
        "language": [line(language, 20) for language in facts.languages] or None,
        "license": line(facts.licence, 60) if facts.licence and isinstance(facts.licence, str) else None,
        **_kind(manifest.saves, facts.base_id, facts.task.library),
        "pipeline_tag": facts.task.pipeline,
        "tags": _tags(facts),
        "datasets": _listed(facts.data()),
        "metrics": sorted({result.metric_type for result in results}) or None,
    }
    if facts.kilograms is not None:
        grams = round(1000 * facts.kilograms, 6)
        front["co2_eq_emissions"] = {"emissions": grams, "source": "codecarbon", "training_type": "fine-tuning"}
    if results:
        front |= {"eval_results": results, "model_name": _model_name(facts)}
    return dict(ModelCardData(**front).to_dict())


def in_progress(settings: Mapping[str, Any], step: int, steps: int) -> str:
    """README.md of a repository while its run still trains; `steps` is 0 when nobody knows how many there will be."""
    model, method = str(settings["model"]), str(settings["method"])
    base, data = hub_id(model, sure=True), named(str(settings["dataset"]), sure=True)
    front = {
        **_kind(catalog.load("methods", method).SAVES, base, task_class(str(settings["task"])).library),
        "pipeline_tag": task_class(str(settings["task"])).pipeline,
        "tags": ["hf-tuner", line(method, 40)],
        "datasets": _listed(data),
    }
    done = f"step {count(step)}" + (f" of {count(steps)}" if steps > 0 else "")
    parts = [
        _dumped(ModelCardData(**front).to_dict()),
        f"# {code(base or public(model))} being fine-tuned on {code(data.name)} ({text(method, 40)})",
        f"> **Training in progress: {done}.** What lies here is a checkpoint on its way. It will be replaced.",
        "## Results\n\nNot measured yet.",
    ]
    return "\n\n".join(parts) + "\n"


def _kind(saves: str, base: str | None, library: str) -> dict[str, Any]:
    """Library, base model and how the run is related to it."""
    adapter = saves == "adapter"
    front: dict[str, Any] = {"library_name": "peft" if adapter else library, "base_model": base}
    return {**front, "base_model_relation": "adapter" if adapter else "finetune"} if base else front


def _tags(facts: Facts) -> list[str]:
    kind = str(facts.adapter.get("peft_type") or "").lower().replace("_", "-")
    return ["hf-tuner", *dict.fromkeys(line(tag, 40) for tag in (facts.manifest.method, kind) if tag)]


def _model_name(facts: Facts) -> str:
    if facts.repo:
        return facts.repo.split("/")[-1]
    return line(f"{facts.base_name}-{facts.data().name}-{facts.manifest.method}".replace("/", "-"), 96)


def _listed(data: Data) -> list[str] | None:
    return [data.hub] if data.hub else None


def _eval_results(facts: Facts) -> list[EvalResult]:
    """Every measured value by split; a metric has the Hub's name as its type and ours, in words, as its name."""
    metrics, results = facts.report.metrics, []
    for split in wording.ordered(wording.SPLITS, metrics):
        data = facts.data(split)
        common = {
            "task_type": facts.task.pipeline,
            "task_name": line(facts.manifest.task.replace("-", " "), 60),
            "dataset_type": data.hub or "local",
            "dataset_name": data.name,
            "dataset_config": data.config,
            "dataset_split": line(split, 40),
            "dataset_revision": data.revision,
        }
        for metric in wording.ordered(wording.ORDER, metrics[split]):
            kind, arguments = HUB_METRICS.get(metric, (line(metric, 40), None))
            value, name = wording.value(metrics[split][metric]), line(wording.name(metric), 60)
            if value is not None:
                results.append(EvalResult(metric_type=kind, metric_name=name, metric_value=value,
                                          metric_args=arguments, **common))  # fmt: skip
    return results


def _warning(facts: Facts) -> str:
    if facts.settings.get("verify", True):
        return ""
    return ("> **Not verified.** This run was saved with `--no-verify`: nobody reloaded these files in a clean process and "
            "compared their answers with those that were measured.")  # fmt: skip


def _summary(facts: Facts) -> str:
    task, report = facts.task, facts.report
    made = f"Gives {task.gives}. Made from {_base(facts)}"
    trained = report.parameters.get("trainable")
    share = f", {count(trained)} of {count(report.parameters['total'])} parameters trained" if trained else ""
    made += f" with {text(facts.manifest.method, 40)}{share}."
    split = headline_split(report)
    first = wording.ordered(wording.ORDER, report.metrics[split])[:1] if split else []
    if split is None or not first or wording.value(report.metrics[split][first[0]]) is None:
        return f"{made} **Not measured** in this form."
    rows = f"the {count(report.rows[split])} rows of {text(split, 40)}" if split in report.rows else text(split, 40)
    main = f"On {rows} its **{text(wording.name(first[0]), 60)} is {wording.with_interval(report.metrics[split][first[0]])}**"
    reached = {b: wording.value(report.baselines.get(b, {}).get(split, {}).get(first[0])) for b in BASELINES}
    others = [f"{BASELINES[b]} reaches {wording.number(value)}" for b, value in reached.items() if value is not None]
    compared = verdict(report)
    compared = f" {compared[0].upper()}{compared[1:]}." if compared else ""
    return f"{made} {main} (95 % interval){'; ' + ', '.join(others) if others else ''}.{compared}"


def _base(facts: Facts) -> str:
    if facts.manifest.base["id"] == "demo":
        return "the embedded model `demo`"
    return _link(facts.base_id, "") if facts.base_id else f"the local model {code(facts.base_name)}"


def _results(facts: Facts) -> str:
    report, rows = facts.report, []
    baselines = wording.ordered(wording.BASELINES, report.baselines)
    for split in wording.ordered(wording.SPLITS, report.metrics):
        size = f" ({count(report.rows[split])} rows)" if split in report.rows else ""
        for metric in wording.ordered(wording.ORDER, report.metrics[split]):
            score = report.metrics[split][metric]
            others = [report.baselines[b].get(split, {}).get(metric) for b in baselines]
            rows.append((f"{text(split, 40)}{size}", text(wording.name(metric), 60), wording.number(wording.value(score)),
                         wording.interval(score) or wording.NONE,
                         *(wording.number(wording.value(other)) for other in others)))  # fmt: skip
    if not rows:
        return "No split was measured with these files."
    return table(("split", "metric", "value", "95 % interval", *(text(b, 40) for b in baselines)), rows)


def _labels(facts: Facts) -> str:
    names = facts.task.label_names
    if not names:
        return ""
    rest = len(names) - SHOWN_LABELS
    more = [f"\n… and {count(rest)} more, in `manifest.json`"] if rest > 0 else []
    return "\n".join(
        ["## Labels\n", *(f"{index}. {code(name)}" for index, name in enumerate(names[:SHOWN_LABELS])), *more]
    )


def _training_data(facts: Facts) -> str:
    data = facts.manifest.data
    sources = {"trained on": facts.data()}
    if facts.settings.get("eval_dataset"):
        sources["measured on"] = facts.data("test")
    lines = [f"- {role} {_source(source)}" for role, source in sources.items()]
    if data.get("columns"):
        lines.append(f"- columns: {code(data['columns'], 200)}")
    lines += [f"- {'labels: ' if facts.task.label_names else ''}{text(facts.task.note)}"] if facts.task.note else []
    prints = data.get("fingerprints", {})
    rows = [
        (text(split, 40), count(size), text(prints.get(split, wording.NONE), 40))
        for split, size in data["rows"].items()
    ]
    return "\n".join(lines) + "\n\n" + table(("split", "rows", "fingerprint"), rows)


def _source(data: Data) -> str:
    place = _link(data.hub, "datasets/") if data.hub else f"{code(data.name)}, which is not on the Hub"
    parts = {"configuration": data.config, "revision": data.revision}
    return place + "".join(f", {what} {code(value)}" for what, value in parts.items() if value)


def _training(facts: Facts) -> str:
    settings, report = facts.settings, facts.report
    given = {k: v for k, v in settings.items() if v is not None}
    ran = facts.manifest.training
    shown = {name.replace("_", " "): _rounded(v) for name, v in ran.items() if name != "epochs"}
    lines = [f"- {name}: {code(value)}" for name, value in shown.items()]
    lines += _length(facts)
    method = {k: v for k, v in facts.manifest.base["method"].items() if v is not None}
    plain = [k for k in PLAIN if facts.task.label_names or k not in ("loss", "class_weights")]
    chosen = {k: given[k] for k in (*plain, *OWN) if k in given}
    lines += [f"- {text(k.replace('_', ' '), 60)}: {code(_rounded(v))}" for k, v in {**chosen, **method}.items()]
    if report.time:
        phases = ", ".join(f"{text(name, 40)} {duration(seconds)}" for name, seconds in report.time.items())
        lines.append(f"- time: {phases}")
    if report.memory.get("peak_mb"):
        lines.append(f"- peak memory: {wording.size(int(report.memory['peak_mb'] * 1e6))}")
    if facts.kilograms is not None:
        lines.append(f"- CO2: {facts.kilograms:.3g} kg CO2eq, measured by codecarbon")
    lines.append("- versions: " + ", ".join(f"{text(k, 40)} {text(v, 40)}" for k, v in report.versions.items()))
    return "\n".join(lines)


def _length(facts: Facts) -> list[str]:
    """How long was trained, as logged."""
    epochs = facts.progress.get("epoch")
    step = facts.progress.get("step")
    return (
        [f"- epochs: {code(_rounded(epochs), 40)}" + (f" ({code(step, 40)} updates)" if step else "")]
        if epochs is not None
        else []
    )


def _rounded(value: Any) -> Any:
    """A number as people read it; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else value


def _longest(facts: Facts) -> str:
    longest = count(facts.manifest.max_length)
    if facts.task.splits:
        return f"It sees at most {longest} tokens at once; longer texts are read in pieces."
    return f"Texts are cut at {longest} tokens; what comes after is not read."


def _limits(facts: Facts) -> str:
    task, report = facts.task, facts.report
    where = f" (languages: {', '.join(text(one, 20) for one in facts.languages)})" if facts.languages else ""
    lines = [
        *task.limits,
        _longest(facts),
        f"It was measured on rows like those it was trained on{where}: other languages and domains are not verified.",
        "What the base model has learned wrongly, this one may repeat.",
    ]
    lines += [f"The data: {text(warning)}." for warning in facts.manifest.data.get("warnings", ())]
    split = headline_split(report)
    if split is not None and split != "test":
        lines.append(f"There was no test split: the numbers are those of {text(split, 40)}.")
    if split is not None and report.rows.get(split, SMALL) < SMALL:
        lines.append(f"The {text(split, 40)} split is small ({count(report.rows[split])} rows): look at the intervals.")
    for name in wording.ordered(wording.SPLITS, report.metrics):
        scores = report.metrics[name]
        lines += [f"{text(wording.name(m), 60)} on {text(name, 40)}: {text(scores[m]['note'])}."
                  for m in wording.ordered(wording.ORDER, scores) if scores[m].get("note")]  # fmt: skip
    if _merged(facts):
        lines.append(
            "The numbers were measured before the adapter was merged; `merged = measured` says what that changed."
        )
    elif "bits" in facts.manifest.base["method"]:
        lines.append("The adapter was trained on a quantised base; on the unquantised one its answers differ.")
    return "\n".join(f"- {one}" for one in lines)


def _merged(facts: Facts) -> bool:
    return any(earlier.get("step") == "merge" for earlier in facts.manifest.lineage)


def _proofs(facts: Facts) -> str:
    proofs = facts.report.proofs
    lines = [f"- {'✓' if p['passed'] else '✗'} {text(p['name'], 100)}: {text(p.get('detail', ''))}" for p in proofs]
    earlier = [f"- made by {text(e.get('step', 'run'), 40)} from {code(_origin(str(e.get('from', ''))))}"
               for e in facts.manifest.lineage]  # fmt: skip
    return "\n".join([*earlier, *lines]) or "None are recorded with these files."


def _origin(run: str) -> str:
    """A run on the Hub by its whole name, a folder by its last part."""
    return run if parse_address(run) else public(run)


def _repeat(facts: Facts) -> str:
    data, embedded = facts.data(), facts.manifest.base["id"] == "demo"
    needs = (["base model"] if not (facts.base_id or embedded) else []) + (
        ["data"] if not (data.hub or data.name == "demo") else []
    )
    local = f" The {' and the '.join(needs)} must be on your machine." if needs else ""
    told = "Every setting is in `run.yaml`, every number in `report.json`, what was trained on what in `manifest.json`."
    lines = [f"hf-tuner rerun {shlex.quote(facts.place)}"]
    lines += ["hf-tuner merge RUN   # the folder that rerun made"] if _merged(facts) else []
    return f"{fenced('bash', lines)}\n\n{told}{local}"


def _link(name: str, kind: str) -> str:
    """A link to a repository whose name was checked."""
    return f"[`{name}`](https://huggingface.co/{kind}{name})"


def _dumped(front: Mapping[str, Any]) -> str:
    return "---\n" + yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=1000) + "---"
