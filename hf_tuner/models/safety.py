"""Never trust a stranger: what lies in a folder is looked at here before transformers or peft touch it.

A model, a tokenizer, an adapter and a run are data. What would make loading them do more than load (code, kernels,
other repositories, memory without end) is refused with exit 4, or left out and said in one line. Nothing here imports
what it looks at.
"""

import fnmatch
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from hf_tuner.console import warn
from hf_tuner.errors import ArtifactError
from hf_tuner.models.pickles import refuse_code
from hf_tuner.models.templates import LONGEST, check_templates

__all__ = [
    "bounded_sketch",
    "check_templates",
    "clean_config",
    "inspect",
    "opened",
    "read_json",
    "refuse_code",
    "require_plausible",
    "shards_of",
]

BYTES = {
    **dict.fromkeys(
        ("*config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json", "manifest.json"),
        8_000_000,
    ),
    "*.index.json": 64_000_000,
    "*.jinja": LONGEST,
    "*.json": 256_000_000,
}
"""Largest file of a kind; the first pattern that fits decides. Vocabularies and histories are large by nature."""
DEPTH = 32
"""Deepest nesting of a JSON file."""
INDEX = "model.safetensors.index.json"
LOOKED_INTO = ("config.json", "adapter_config.json", "generation_config.json", "tokenizer_config.json",
               "special_tokens_map.json", "added_tokens.json", INDEX)  # fmt: skip
"""Files whose content is checked, wherever they lie."""
SIZED = ("config.json", "adapter_config.json", "generation_config.json")
"""Those of them whose numbers say how large a model is; elsewhere numbers are ids, bytes and "no limit"."""
NOT_SIZES = re.compile(r"(max_length|sliding_window\w*|window|window_size)$")
"""Numbers that take no memory: "no limit" is written as 10^30."""
FILES_OF_WORDS = ("vocab", "merges")
"""Keys of tokenizer_config.json that a tokenizer takes as a table, or as the path of a file to read."""
NUMBERS = (
    (re.compile(r"(layers?|depths?|blocks?|stages?|groups?|group_num|experts)$"), 10_000),
    (re.compile(r"labels$"), 1_000_000),
    (re.compile(r"(^r|rank|virtual_tokens)$"), 4096),
    (re.compile(r"vocab|size|dim|width|channels|embd|d_model|d_ff|ffn|heads|virtual|kernel"), 10_000_000),
    (re.compile(r""), 10**12),
)
"""Largest value of a number by the end of its name; no model comes near these."""
CODE = "code in a model's folder is not run"
CHOSEN = "how it is computed is chosen here"
LEFT_OUT = {
    "auto_map": CODE,
    "custom_pipelines": CODE,
    "quantization_config": "weights are read as they lie; quantise with --method qlora",
    "_attn_implementation": CHOSEN,
    "_attn_implementation_internal": CHOSEN,
    "attn_implementation": CHOSEN,
    "_experts_implementation": CHOSEN,
    "_experts_implementation_internal": CHOSEN,
    "experts_implementation": CHOSEN,
    "kernel_config": CHOSEN,
    "use_kernels": CHOSEN,
    "use_pretrained_backbone": "weights come from the model's own files",
    "transformers_weights": "weights come from the model's own files",
    "checkpoint_path": "weights come from the model's own files",
    "_commit_hash": "the commit is the one that was asked for",
}
"""Keys of config.json, at any depth, that would make loading do more than load, and what is said of them."""
OF_TIMM = ("architecture", "backbone")
"""Keys that name an architecture of timm, which takes "hf-hub:user/name" and "local-dir:folder" for one, too."""
DTYPES = ("float64", "float32", "float16", "bfloat16", "auto")
NAME_FIELDS = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "target_parameters", "rank_pattern",
               "alpha_pattern", "feedforward_modules", "trainable_token_indices", "bias_pattern")  # fmt: skip
"""Fields of adapter_config.json that peft matches as regular expressions; only plain names are let through."""
PLAIN_NAME = re.compile(r"[\w.\-]*")
GADGETS = {
    "megatron_config": "it would import a module",
    "layer_replication": "it would copy the base's layers",
    "tokenizer_kwargs": "it would load another tokenizer",
    "prompt_tuning_init_state_dict_path": "it would read another file",
    "adapters": "it would load other adapters",
    "loftq_config": "it would quantise the base anew",
    "corda_config": "it would read other files",
    "lora_ga_config": "it would read other files",
}
"""Fields of adapter_config.json that a saved adapter has no use for, and that make peft do more than load it."""
FOREIGN_TYPES = ("XLORA", "ADAPTION_PROMPT", "MULTITASK_PROMPT_TUNING", "POLY", "CPT", "SHADOW")
"""Adapters that this package never makes and that need other files or models beside them."""
MODULES = 300_000
"""Modules a model may be made of (a mixture of 256 experts in 60 layers has 60,000)."""
ROOM = 100_000_000
"""Numbers that a new head, an averaging block and buffers may add to what is in the files."""


def inspect(folder: Path, source: str | None = None) -> None:
    """Look at everything in a folder that a library would read, before it does; what will be ignored is said once.

    `source` is what to call the folder (default: its path). Raises ArtifactError that names file and reason.
    """
    source = source or str(folder)
    for path in sorted(folder.glob("*")) + sorted(folder.glob("*/*.jinja")):
        limit = next((size for pattern, size in BYTES.items() if fnmatch.fnmatch(path.name, pattern)), None)
        if limit and path.is_file() and path.stat().st_size > limit:
            raise ArtifactError(
                f"{path.name} of {source} has {path.stat().st_size:,} bytes; at most {limit:,}: refused"
            )
    found = {name: read_json(folder / name, source) for name in LOOKED_INTO if (folder / name).is_file()}
    for name in SIZED:
        check_numbers(found.get(name), f"{name} of {source}")
    if "adapter_config.json" in found:
        if "config.json" in found:
            raise ArtifactError(f"{source} holds config.json and adapter_config.json: as a model it would load another base. "
                                "Remove one of them")  # fmt: skip
        check_adapter(found["adapter_config.json"], source)
        _require_safetensors(folder, "adapter_model", source)
    tokenizer = found.get("tokenizer_config.json", {})
    if tokenizer.get("auto_map") is not None:
        _say_once(f"tokenizer_config.json of {source} names code; {CODE}")
    for key in FILES_OF_WORDS:
        if isinstance(tokenizer.get(key), str):
            raise ArtifactError(f"tokenizer_config.json of {source}: {key} names a file, {_short(tokenizer[key])}: refused, it "
                                "would be read")  # fmt: skip
    if INDEX in found:
        shards_of(found[INDEX], source)


def shards_of(index: Mapping[str, Any], source: str) -> list[str]:
    """The files that an index of weights names, sorted. Raises ArtifactError for any but safetensors of its own folder."""
    shards = index.get("weight_map", {})
    names = list(shards.values()) if isinstance(shards, dict) else [shards]
    if bad := [n for n in names if not isinstance(n, str) or not n.endswith(".safetensors") or not plain_path(n)]:
        raise ArtifactError(f"{INDEX} of {source} names {_short(bad[0])} as weights: refused")
    return sorted(set(names))


def plain_path(name: str) -> bool:
    """Whether a name stays inside the folder it is joined to: relative, no "..", no NUL, no backslash."""
    parts = name.split("/")
    return bool(name) and not {"", ".", ".."} & set(parts) and not any(c in name for c in "\0\\\n")


def read_json(path: Path, source: str | None = None) -> dict[str, Any]:
    """An object from a JSON file of bounded size and depth. Raises ArtifactError that names the file."""
    data = read_any_json(path, source)
    if not isinstance(data, dict):
        where = f"{path.name} of {source}" if source else str(path)
        raise ArtifactError(f"{where} holds a {type(data).__name__} where an object is expected")
    return data


def read_any_json(path: Path, source: str | None = None) -> Any:
    """As `read_json`, for files that may hold a list."""
    where = f"{path.name} of {source}" if source else str(path)
    limit = next(size for pattern, size in BYTES.items() if fnmatch.fnmatch(path.name, pattern))
    if path.stat().st_size > limit:
        raise ArtifactError(f"{where} has {path.stat().st_size:,} bytes; at most {limit:,}: refused")
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise ArtifactError(f"{where} is nested too deeply; at most {DEPTH} levels: refused") from None
    except ValueError as error:
        raise ArtifactError(f"{where} is not JSON ({error}); restore it from a copy") from error
    if _depth(data) > DEPTH:
        raise ArtifactError(f"{where} is nested too deeply; at most {DEPTH} levels: refused")
    return data


def _depth(data: Any) -> int:
    level, deep = [data], 0
    while level:
        deep += 1
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [value for values in inner for value in values]
    return deep - 1


def clean_config(data: Mapping[str, Any], source: str, trusted: str | None = None) -> dict[str, Any]:
    """The content of config.json without the keys that would make loading do more than load; each is said once.

    With `trusted` (the repository whose code the user allowed) its own code stays named, under the repository's name,
    so that it is only ever taken from there. Raises ArtifactError for code in yet another repository.
    """
    return dict(_cleaned(data, source, trusted, ""))


def _cleaned(data: Mapping[str, Any], source: str, trusted: str | None, where: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        name = f"{where}{key}"
        if key == "auto_map" and trusted and not where:
            yield key, _own_code(value, trusted)
        elif key in LEFT_OUT:
            if value not in (None, False):
                _say_once(f"config.json of {source} asks for {name} = {_short(value)}; ignored: {LEFT_OUT[key]}")
        elif key in OF_TIMM and isinstance(value, str) and ":" in value:
            raise ArtifactError(f"config.json of {source}: {name} names another model, {_short(value)}: refused, it would be "
                                "read")  # fmt: skip
        elif key in ("dtype", "torch_dtype") and isinstance(value, str) and value not in DTYPES:
            _say_once(f"config.json of {source} asks for {name} = {_short(value)}; ignored: not a type of weights")
        else:
            yield key, _cleaned_inside(value, source, trusted, f"{name}.")


def _cleaned_inside(value: Any, source: str, trusted: str | None, where: str) -> Any:
    if isinstance(value, dict):
        return dict(_cleaned(value, source, trusted, where))
    return [_cleaned_inside(v, source, trusted, where) for v in value] if isinstance(value, list) else value


def _own_code(value: Any, trusted: str) -> dict[str, str]:
    found = {}
    for auto, reference in (value if isinstance(value, dict) else {}).items():
        repository, _, name = str(reference).rpartition("--")
        if repository not in ("", trusted) or not re.fullmatch(r"\w+\.\w+", name):
            raise ArtifactError(f"{trusted} takes the code of {auto} from {reference}: only code of the pinned "
                                "repository itself can be trusted")  # fmt: skip
        found[auto] = f"{trusted}--{name}"
    return found


def check_numbers(data: Any, where: str, name: str = "") -> None:
    """Raise ArtifactError for a number that no model has: it would fill the memory before anything is noticed."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key not in ("label2id", "id2label"):  # names of classes, which may be any words
                check_numbers(value, where, str(key))
    elif isinstance(data, list):
        for value in data:
            check_numbers(value, where, name)
    elif isinstance(data, int) and not isinstance(data, bool):
        most = next(limit for pattern, limit in NUMBERS if pattern.search(name))
        if abs(data) > most and not NOT_SIZES.search(name):
            raise ArtifactError(f"{where}: {name} is {_short(data)}; at most {most:,} is believed: refused")


def check_adapter(data: Mapping[str, Any], source: str) -> None:
    """Raise ArtifactError for an adapter_config.json that makes peft import, fetch, copy or search without end."""
    where = f"adapter_config.json of {source}"
    kind = str(data.get("peft_type", ""))
    if not re.fullmatch(r"\w+", kind) or kind.upper() in FOREIGN_TYPES:
        raise ArtifactError(f"{where}: peft_type {_short(kind)} is not a kind of adapter that is loaded here")
    library = (
        (data.get("auto_mapping") or {}).get("parent_library") if isinstance(data.get("auto_mapping"), dict) else None
    )
    if library is not None and not str(library).startswith(("transformers.", "transformers_modules.")):
        raise ArtifactError(f"{where}: auto_mapping names the module {_short(library)}: refused, it would be imported")
    if data.get("megatron_core") not in (None, "megatron.core"):
        raise ArtifactError(f"{where}: megatron_core names a module: refused, it would be imported")
    for key, reason in GADGETS.items():
        if data.get(key):
            raise ArtifactError(f"{where}: {key} is {_short(data[key])}: refused, {reason}")
    for pattern in ("rank_pattern", "alpha_pattern"):
        if not isinstance(data.get(pattern) or {}, dict):
            raise ArtifactError(f"{where}: {pattern} is {_short(data[pattern])}, expected numbers by name")
        check_numbers(list((data.get(pattern) or {}).values()), where, "r")
    for key in NAME_FIELDS:
        for name in _names(data.get(key)):
            if not PLAIN_NAME.fullmatch(name):
                raise ArtifactError(f"{where}: {key} holds {_short(name)}: refused, only plain module names are loaded")


def _names(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        return [value]
    return [str(v) for v in value] if isinstance(value, list | dict) else []


def _require_safetensors(folder: Path, stem: str, source: str) -> None:
    pickled = sorted(p.name for p in folder.glob(f"{stem}*.bin"))
    if pickled and not list(folder.glob(f"{stem}*.safetensors")):
        raise ArtifactError(f"{source} holds {pickled[0]} and no {stem}.safetensors: pickled weights can run code. "
                            "Save them as safetensors where you trust them")  # fmt: skip


@contextmanager
def bounded_sketch(source: str) -> Iterator[None]:
    """Stop a model that is being laid out at MODULES modules: sizes that multiply cannot be seen in config.json."""
    from torch.nn.modules.module import register_module_module_registration_hook

    count = 0

    def one_more(module: Any, name: str, submodule: Any) -> None:
        nonlocal count
        count += 1
        if count > MODULES:
            raise ArtifactError(f"config.json of {source} describes a model of more than {MODULES:,} modules: refused")

    handle = register_module_module_registration_hook(one_more)
    try:
        yield
    finally:
        handle.remove()


def require_plausible(sketch: Any, weights: Iterable[Path], source: str) -> None:
    """Raise ArtifactError when a model laid out without memory is far larger than the weights in its files.

    The rest would be made up, in memory: a vocabulary of 400 million rows, a table of 10^12 positions.
    """
    held = 0
    for path in weights:
        with opened(path) as file:
            held += sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - not a dict
    described = sum(t.numel() for t in (*sketch.parameters(), *sketch.buffers()))
    if described > 2 * held + ROOM:
        raise ArtifactError(f"config.json of {source} describes a model of {described:,} numbers, its weights hold {held:,}: "
                            "they do not belong together")  # fmt: skip


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open. Raises ArtifactError when it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); restore it from a copy") from error


@functools.cache
def _say_once(text: str) -> None:
    warn(text)


def _short(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    except ValueError:  # an integer of more digits than Python writes
        text = "a number without end"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 60 else text[:57] + "…"
