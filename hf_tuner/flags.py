"""Dataclasses become flags, YAML becomes defaults, and every mistake is reported at once.

Nothing heavy is imported: the fields of `TrainingArguments` are read from the installed source with `ast`, so
tomorrow's fields come free and a typo is answered in milliseconds.
"""

import argparse
import ast
import contextlib
import functools
import importlib.util
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from hf_tuner import catalog
from hf_tuner.changes import ALLOWABLE, unknown_names
from hf_tuner.config import Run
from hf_tuner.errors import UsageError
from hf_tuner.plain_yaml import read_yaml

PLUG_FIELDS = {"loss": "losses", "optimizer": "optimizers"}
REFUSED = {
    "hub_token": "a token on the command line ends up in logs and saved files; set HF_TOKEN or run `hf auth login`",
    "resume_from_checkpoint": "use --resume auto|never|PATH",
    "label_smoothing_factor": "the loss is the run's own: use --cross-entropy.smoothing",
    "remove_unused_columns": "columns are chosen by --columns",
    "label_names": "columns are chosen by --columns",
    "logging_nan_inf_filter": "a number that is not finite always stops the run",
    "average_tokens_across_devices": "losses are always averaged over all processes",
    "hub_always_push": "it uploads one checkpoint under another's name; every save is pushed in its turn without it",
    "group_by_length": "batches are always of similar length",
}


USUAL = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "steps": "max_steps",
    "output": "output_dir",
    "rank": "r",
    "lora_r": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "data": "dataset",
}
"""What other tools call a setting."""


@dataclass(frozen=True)
class Flag:
    """One setting a user may give: its name, type, default, help, and where it belongs."""

    name: str
    kind: Any
    default: Any
    help: str
    choices: tuple[str, ...]
    owner: str


def parse(argv: Sequence[str], defaults: Mapping[str, Any]) -> Run:
    """Turn command-line words into a `Run`: flags beat the YAML of `--config`, which beats `defaults`.

    Raises UsageError naming every unknown key and every wrong value together.
    """
    problems: list[str] = []
    known = training_flags()
    first = _peek(argv)
    yaml = read_yaml(Path(first["config"]), "--config ", words=True) if first.get("config") else {}
    chosen = {**{f.name: f.default for f in run_flags()}, **defaults, **_own(yaml), **_own(first)}
    shared = {f.name for f in run_flags()}
    flags = own_flags(chosen) + [f for f in known if f.name not in shared]
    given, unknown = _parse_words(argv, flags, problems)
    flat = _flatten(yaml, chosen, flags, unknown)
    values = {**defaults, **flat, **given}
    values |= _own(values)
    for key in unknown:
        problems.append(_unknown_key(key, [f.name for f in flags]))
    # Nothing (null in YAML) for a setting that must be something leaves its default.
    said = [f for f in flags if f.name in values and (values[f.name] is not None or f.kind is not _plain(f.kind))]
    typed = {f.name: _typed(f, values[f.name], problems) for f in said}
    for name in unknown_names(typed.get("allow_changed")):
        problems.append("--allow-changed: " + catalog.unknown("setting that may change", name, list(ALLOWABLE)))
    if problems:
        raise UsageError("\n".join(problems))
    return build(typed, chosen, flags)


def build(values: Mapping[str, Any], chosen: Mapping[str, Any], flags: Sequence[Flag]) -> Run:
    """Make the `Run` from typed values; `chosen` says which method and plugs are in play."""
    shared = {f.name: values[f.name] for f in flags if f.owner == "run" and f.name in values}
    training = {f.name: values[f.name] for f in flags if f.owner == "training" and f.name in values}
    configs = {}
    for owner, module in _chosen_modules(chosen).items():
        prefix = f"{owner}."
        own = {f.name.removeprefix(prefix): values[f.name] for f in flags if f.owner == owner and f.name in values}
        try:
            configs[owner] = module.Config(**own)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{owner}: {error}") from error
    return Run(
        **shared,
        task_config=configs.pop(str(chosen["task"]), None),
        method_config=configs.pop(str(chosen["method"]), None),
        plugs=configs,
        training=training,
    )


def run_flags() -> list[Flag]:
    """The settings shared by every run."""
    hints = typing.get_type_hints(Run)
    return [_flag(f, hints, "run", "") for f in fields(Run) if not f.metadata.get("internal")]


def own_flags(chosen: Mapping[str, Any]) -> list[Flag]:
    """Shared settings, those of the chosen task and method, and the chosen plugs' (prefixed with the plug's name)."""
    flags = run_flags()
    for owner, module in _chosen_modules(chosen).items():
        prefix = "" if owner in (chosen["task"], chosen["method"]) else f"{owner}."
        hints = typing.get_type_hints(module.Config)
        flags += [_flag(f, hints, owner, prefix) for f in fields(module.Config)]
    return flags


@functools.cache
def training_flags() -> list[Flag]:
    """Every field of the installed `TrainingArguments`, read from its source."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise UsageError("transformers is not installed: pip install hf-tuner")
    tree = ast.parse((Path(spec.origin).parent / "training_args.py").read_text(encoding="utf-8"))
    body = next(n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "TrainingArguments")
    return [_training_flag(n) for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]


def help_text(program: str, description: str, chosen: Mapping[str, Any]) -> str:
    """The page that `--help` prints: shared settings, the method's own, the plugs', and where the rest is."""
    lines = [description.strip(), "", f"usage: {program} [--flag value …]", ""]
    groups: dict[str, list[Flag]] = {}
    for flag in own_flags(chosen):
        groups.setdefault(flag.owner, []).append(flag)
    for owner, flags in groups.items():
        lines.append("shared settings:" if owner == "run" else f"{owner}:")
        for flag in flags:
            default = chosen.get(flag.name, flag.default)
            shown = "" if default in (None, "") else f" [{default}]"
            lines.append(f"  --{flag.name.replace('_', '-'):<22} {flag.help}{shown}")
        lines.append("")
    lines.append(f"Every field of transformers.TrainingArguments is a flag too ({len(training_flags())} of them:")
    lines.append(
        "--learning-rate, --num-train-epochs, --per-device-train-batch-size, --bf16, --report-to, --push-to-hub,"
    )
    lines.append("--hub-model-id, --hub-private-repo, --hub-revision, --hub-strategy, …).")
    return "\n".join(lines)


def _flag(field: Any, hints: Mapping[str, Any], owner: str, prefix: str) -> Flag:
    default = field.default if field.default is not MISSING else None
    return Flag(prefix + field.name, hints[field.name], default, field.metadata.get("help", ""),
                field.metadata.get("choices", ()), owner)  # fmt: skip


def _training_flag(node: ast.AnnAssign) -> Flag:
    text = ast.unparse(node.annotation)
    kinds = {"int": int, "float": float, "bool": bool}
    kind = next((k for name, k in kinds.items() if text in (name, f"{name} | None")), str)
    call = node.value
    keywords = {k.arg: k.value for k in call.keywords} if isinstance(call, ast.Call) else {}
    given = keywords.get("default")
    default = given.value if isinstance(given, ast.Constant) else None
    return Flag(node.target.id, kind if "list[" not in text else list, default, "", (), "training")  # type: ignore[union-attr]


def _chosen_modules(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Modules of the chosen task, method and plugs that have settings of their own, by name."""
    modules = {}
    for key, kind in {"task": "tasks", "method": "methods", **PLUG_FIELDS}.items():
        module = catalog.load(kind, str(chosen[key]))
        if is_dataclass(getattr(module, "Config", None)):
            modules[str(chosen[key])] = module
    return modules


def _peek(argv: Sequence[str]) -> dict[str, str]:
    """The few flags that decide which other flags exist."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("config", "task", "method", *PLUG_FIELDS):
        parser.add_argument(f"--{name}")
    try:
        seen, _ = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    return {k: v for k, v in vars(seen).items() if v is not None}


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: str(v).replace("_", "-") for k, v in values.items() if k in ("task", "method", *PLUG_FIELDS)}


def _parse_words(argv: Sequence[str], flags: Sequence[Flag], problems: list[str]) -> tuple[dict[str, Any], list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False,
                                     argument_default=argparse.SUPPRESS)  # fmt: skip
    parser.add_argument("--config")
    for flag in flags:
        words = sorted({f"--{flag.name.replace('_', '-')}", f"--{flag.name}"})
        if flag.kind is bool:
            parser.add_argument(*words, dest=flag.name, nargs="?", const=True)
            no = sorted({f"--no-{flag.name.replace('_', '-')}", f"--no_{flag.name}"})
            parser.add_argument(*no, dest=flag.name, action="store_const", const=False)
        else:
            parser.add_argument(*words, dest=flag.name, nargs="+" if flag.kind is list else None)
    try:
        seen, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        problems.append(str(error).replace("argument ", "", 1))
        return {}, []
    problems += [f"unexpected word {_shown(word)}; flags start with --" for word in _stray(rest)]
    given = {k: v for k, v in vars(seen).items() if k != "config"}
    return given, [w.partition("=")[0].lstrip("-").replace("-", "_") for w in rest if w.startswith("--")]


def _stray(rest: Sequence[str]) -> list[str]:
    """Words that belong to no flag at all (a value after an unknown flag is that flag's)."""
    return [w for i, w in enumerate(rest) if not w.startswith("--") and not (i and rest[i - 1].startswith("--"))]


def _flatten(
    yaml: Mapping[str, Any], chosen: Mapping[str, Any], flags: Sequence[Flag], unknown: list[str]
) -> dict[str, Any]:
    """YAML keys in flag names: sections of the chosen method and plugs are opened, unknown keys collected."""
    known = {f.name for f in flags}
    plain = (chosen["task"], chosen["method"])
    sections = {name: ("" if name in plain else f"{name}.") for name in _chosen_modules(chosen)}
    flat: dict[str, Any] = {}
    for key, value in yaml.items():
        name = key.replace("-", "_")
        if isinstance(value, dict) and key in sections:
            flat.update({sections[key] + k.replace("-", "_"): v for k, v in value.items()})
        else:
            flat[name] = value
    unknown += [k for k in flat if k not in known]
    return {k: v for k, v in flat.items() if k in known}


def _unknown_key(key: str, known: list[str]) -> str:
    if key in REFUSED:
        return f"--{key.replace('_', '-')}: {REFUSED[key]}"
    for method in sorted(catalog.names("methods"), key=lambda name: name != "lora"):
        module = catalog.load("methods", method)
        if is_dataclass(getattr(module, "Config", None)) and key in {f.name for f in fields(module.Config)}:
            return f"--{key.replace('_', '-')} belongs to the method {method}"
    close = USUAL.get(key) or catalog.nearest(key, known)
    hint = f"; did you mean --{close.replace('_', '-')}?" if close else ""
    return f"unknown setting --{key.replace('_', '-')}{hint}"


def _typed(flag: Flag, value: Any, problems: list[str]) -> Any:
    """Turn a word or YAML value into the flag's type; what cannot be is added to `problems`."""
    value = _numbers(value)
    if flag.name in REFUSED and flag.owner == "training":
        problems.append(f"--{flag.name.replace('_', '-')}: {REFUSED[flag.name]}")
        return None
    if isinstance(value, str) and "\0" in value:
        problems.append(f"--{flag.name.replace('_', '-')} {_shown(value)}: a NUL character is in it")
        return None
    try:
        others = {typing.get_origin(other) or other for other in typing.get_args(flag.kind)}
        # What TrainingArguments takes as text is not always told from what it takes as JSON.
        if (
            flag.owner != "training"
            and _plain(flag.kind) is str
            and isinstance(value, dict | list)
            and list not in others
        ):
            raise TypeError(value)
        result = _convert(flag.kind, value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        kind = _plain(flag.kind)
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(
            kind, f"a {getattr(kind, '__name__', kind)}"
        )
        problems.append(f"--{flag.name.replace('_', '-')} {_shown(value)}: expected {wanted}")
        return None
    if flag.choices and result not in flag.choices:
        close = catalog.nearest(str(result), flag.choices)
        hint = f'; did you mean "{close}"?' if close else ""
        problems.append(
            f"--{flag.name.replace('_', '-')} {_shown(value)}: expected one of {', '.join(flag.choices)}{hint}"
        )
    return result


def _numbers(value: Any) -> Any:
    """A list or mapping of a YAML file with its numbers, true and false as such; for single values the flag's type decides."""
    if isinstance(value, dict):
        return {k: _number(v) for k, v in value.items()}
    return [_number(v) for v in value] if isinstance(value, list) else value


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return _numbers(value)
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            if math.isfinite(kind(value)):
                return kind(value)
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}…"


def _plain(kind: Any) -> Any:
    """The type inside `X | None`."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(a for a in typing.get_args(kind) if a is not type(None))
    return kind


def _convert(kind: Any, value: Any) -> Any:
    optional = kind is not _plain(kind)
    plain = _plain(kind)
    if value is None or (optional and value == "none"):
        return None
    if plain is bool:
        words = {**dict.fromkeys(("true", "1", "yes", "on"), True), **dict.fromkeys(("false", "0", "no", "off"), False)}
        if isinstance(value, bool):
            return value
        if str(value).lower() not in words:
            raise ValueError(value)
        return words[str(value).lower()]
    if plain is int:
        if isinstance(value, bool) or float(value) != int(float(value)):
            raise ValueError(value)
        return int(value) if str(value).lstrip("+-").isdigit() else int(float(value))  # a float holds 53 bits only
    if plain is float:
        if not math.isfinite(float(value)):
            raise ValueError(value)
        return float(value)
    if typing.get_origin(plain) is dict or plain is dict:
        result = json.loads(value) if isinstance(value, str) else value
        if not isinstance(result, dict):
            raise ValueError(value)
        return result
    if plain is list:
        return list(value) if isinstance(value, list | tuple) else [value]
    return value if isinstance(value, dict | list) else str(value)
