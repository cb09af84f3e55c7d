"""The one door for models and tokenizers that others made: looked at first, then loaded without running their code.

Nothing else in the package calls `from_pretrained` or `from_config` on what it did not write itself.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import NotASafetensorsRepoError
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from hf_tuner.errors import ArtifactError, EnvironmentFault, TunerError
from hf_tuner.hub.client import api
from hf_tuner.hub.faults import HUB_ERRORS
from hf_tuner.models import safety
from hf_tuner.models.templates import render_all
from hf_tuner.models.timm_models import SIGN, forget_names, needs_timm, plain_processor
from hf_tuner.models.trust import is_trusted

SMALL_FILES = (
    "config.json",
    "adapter_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""What is fetched of a repository and looked at before anything else is."""
Code = tuple[str, str | None]
"""A repository and its commit, whose code a model may be made of where it is trusted."""
WHOLE = "model.safetensors"


def looked_at(source: str, commit: str | None) -> Path:
    """The folder of a model, its small files present and inspected: `source` itself, or the client's cache of a commit."""
    folder = Path(source)
    if not folder.is_dir():
        found = [_cached(source, name, commit) for name in SMALL_FILES]
        present = [path for path in found if path]
        if not present:
            raise OSError(f"{source} does not appear to have a file named config.json")
        folder = present[0].parent
    safety.inspect(folder, source)
    return folder


def config_of(source: str, commit: str | None, code: Code | None = None, **options: Any) -> Any:
    """The configuration of a model, without what would make loading it do more than load (said once).

    `code` says which repository at which commit its code belongs to (default: the model's own).
    """
    folder = looked_at(source, commit)
    if not (folder / "config.json").is_file():
        raise OSError(f"{source} does not appear to have a file named config.json")
    data = safety.read_json(folder / "config.json", source)
    code = code or (source, commit)
    trusted = code[0] if is_trusted(*code) else None
    _require_known(data, source, trusted)
    clean = safety.clean_config(data, source, trusted)
    with TemporaryDirectory() as aside:
        (Path(aside) / "config.json").write_text(json.dumps(clean), encoding="utf-8")
        try:
            with needs_timm(source):
                config = forget_names(AutoConfig.from_pretrained(aside, **_code_options(code), **options))
        except (TunerError, *HUB_ERRORS):
            raise
        except Exception as error:  # each architecture fails in its own way at values it does not expect
            raise _unreadable("config.json", source, error) from error
    config._name_or_path = source
    config.architectures = config.architectures or []  # transformers looks through them where a model has several heads
    return config


def processor_of(kind: str, source: str, commit: str | None = None) -> Any:
    """The tokenizer, image processor or processor (`kind` is the auto class) of a model or a run.

    Code that its files name is never run: built-in classes only.
    """
    looked_at(source, commit)
    what = {"AutoTokenizer": "tokenizer", "AutoImageProcessor": "image processor"}.get(kind, "processor")
    try:
        with needs_timm(source):
            processor = _processor(kind, source, commit)
    except TunerError:
        raise
    except HUB_ERRORS as error:
        if "trust_remote_code" in str(error):
            raise ArtifactError(f"the {what} of {source} is code of its own, which is never run; a model with a tokenizer.json "
                                "needs none") from error  # fmt: skip
        raise
    except Exception as error:  # tokenizers raises bare Exceptions for a file it cannot make sense of
        raise _unreadable(what, source, error) from error
    tokenizer = processor if kind == "AutoTokenizer" else getattr(processor, "tokenizer", None)
    for holder in (processor, tokenizer):
        safety.check_templates(getattr(holder, "chat_template", None), source)
    if tokenizer is not None:
        tokenizer.tuner_render = render_all  # tasks render conversations, and may not know the rooms
    return processor


def _processor(kind: str, source: str, commit: str | None) -> Any:
    """What an auto class gives; where AutoProcessor knows no processor (an encoder and a decoder of two models), tokenizer
    and image processor as one, which is saved and found again as a whole."""

    def read(name: str) -> Any:
        return getattr(transformers, name).from_pretrained(source, revision=commit, trust_remote_code=False)

    found = read(kind)
    if type(found).__name__ == "TimmWrapperImageProcessor":
        return plain_processor(found, source)
    if kind != "AutoProcessor" or isinstance(found, transformers.ProcessorMixin):
        return found
    return transformers.TrOCRProcessor(image_processor=read("AutoImageProcessor"), tokenizer=read("AutoTokenizer"))


def is_timm(source: str, commit: str | None) -> bool:
    """Whether a model is a checkpoint of timm, whose config.json says how it reads pictures too."""
    folder = looked_at(source, commit)
    return (folder / "config.json").is_file() and SIGN in safety.read_json(folder / "config.json", source)


def tokenizer_of(source: str, commit: str | None = None) -> Any:
    """The tokenizer of a model or a run."""
    return processor_of("AutoTokenizer", source, commit)


def sketch_of(auto: Any, config: Any, source: str, code: Code | None = None) -> Any:
    """A model laid out on the meta device, without memory; stopped when it grows without end."""
    options = _code_options(code)
    if _is_registered(auto, config):
        options.pop("code_revision", None)  # its class is here already: nothing is fetched, and this word is not known
    try:
        with needs_timm(source), safety.bounded_sketch(source), torch.device("meta"):
            return auto.from_config(config, **options)
    except TunerError:
        raise
    except ImportError as error:
        raise EnvironmentFault(f"{source} needs a package that is not installed: {_brief(error)}") from error
    except Exception as error:
        raise ArtifactError(
            f"config.json of {source} describes a model that cannot be built: {_brief(error)}"
        ) from error


def model_of(auto: Any, sketch: Any, source: str, commit: str | None, code: Code | None = None, **options: Any) -> Any:
    """A model with its weights, from safetensors alone, once its files were found to hold what its configuration says."""
    safety.require_plausible(sketch, weights_of(source, commit), source)
    return auto.from_pretrained(source, config=sketch.config, revision=commit, use_safetensors=True,
                                **_code_options(code or (source, commit)), **options)  # fmt: skip


def weights_of(source: str, commit: str | None) -> list[Path]:
    """The files of a model's weights, fetched where they lie on the Hub. Raises OSError when there are none."""
    whole = _file(source, WHOLE, commit)
    if whole:
        return [whole]
    index = _file(source, safety.INDEX, commit)
    if index is None:
        raise OSError(f"{source} does not appear to have a file named {WHOLE}")
    shards = safety.shards_of(safety.read_json(index, source), source)
    found = [_file(source, name, commit) for name in shards]
    missing = [name for name, path in zip(shards, found, strict=True) if path is None]
    if missing:
        raise ArtifactError(f"{source} is incomplete: {missing[0]} is missing; download or copy it again")
    return [path for path in found if path]


def gaps_of(sketch: Any, source: str, commit: str | None) -> list[str]:
    """Names of a sketched model's weights that a checkpoint does not bring, or brings in another size.

    Found as when the weights are read, but without reading them: the heads of the files are enough.
    """
    held = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(source, commit).items()}
    _, info = type(sketch).from_pretrained(None, config=copy.deepcopy(sketch.config), state_dict=held, device_map="meta",
                                           ignore_mismatched_sizes=True, output_loading_info=True)  # fmt: skip
    return missing_in(info)


def missing_in(info: Mapping[str, Any]) -> list[str]:
    """Names that loading reports as missing or of another size."""
    return sorted(info["missing_keys"]) + [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]


def shapes_of(source: str, commit: str | None) -> dict[str, tuple[int, ...]]:
    """Name → shape of every weight of a checkpoint; of one on the Hub that is not here, only the heads are fetched."""
    if Path(source).is_dir() or any(_is_here(source, name, commit) for name in (WHOLE, safety.INDEX)):
        shapes: dict[str, tuple[int, ...]] = {}
        for path in weights_of(source, commit):
            with safety.opened(path) as file:
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no dict
        return shapes
    try:
        found = api().get_safetensors_metadata(source, revision=commit)
    except NotASafetensorsRepoError as error:
        raise OSError(f"{source} does not appear to have a file named {WHOLE}") from error
    return {name: tuple(one.shape) for file in found.files_metadata.values() for name, one in file.tensors.items()}


def _is_here(source: str, name: str, commit: str | None) -> bool:
    return isinstance(try_to_load_from_cache(source, name, revision=commit), str)


def _file(source: str, name: str, commit: str | None) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    return _cached(source, name, commit)


def _cached(source: str, name: str, commit: str | None) -> Path | None:
    path = cached_file(source, name, revision=commit, _raise_exceptions_for_missing_entries=False)
    return Path(path) if path else None


def _code_options(code: Code | None) -> dict[str, Any]:
    """What transformers is told about code: none, or that of one repository at one commit."""
    trusted = code is not None and is_trusted(*code)
    return {"trust_remote_code": trusted, **({"code_revision": code[1]} if code and trusted else {})}


def _is_registered(auto: Any, config: Any) -> bool:
    """Whether code that was loaded before gave the class for a configuration."""
    if type(config) not in auto._model_mapping:
        return False
    found = auto._model_mapping[type(config)]
    classes = found if isinstance(found, list | tuple) else (found,)
    return not any(c.__module__.startswith("transformers.") for c in classes)


def _require_known(data: dict[str, Any], source: str, trusted: str | None) -> None:
    """Raise ArtifactError for an architecture that only code of the repository could build."""
    kind = data.get("model_type")
    if trusted or kind in transformers.CONFIG_MAPPING or not data.get("auto_map"):
        return
    name = f"the architecture {kind}" if isinstance(kind, str) and len(kind) < 60 else "an architecture of its own"
    raise ArtifactError(f"{source} is {name}, which needs code from its repository, and that is not run. If you have read the "
                        "code: --trust-remote-code --model-revision COMMIT (40 digits; not for a folder)")  # fmt: skip


def _unreadable(what: str, source: str, error: Exception) -> ArtifactError:
    return ArtifactError(f"{what} of {source} cannot be made sense of: {_brief(error)}")


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
