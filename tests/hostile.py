"""Things a stranger might send: pickles, models and templates whose payload leaves a marker file when it runs."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Payload:
    """An object whose pickle makes a file when it is read by `pickle.load`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """What pickle is told to call."""
        return os.mkdir, (str(self.marker),)


def write_payload(path: Path, marker: Path, form: str) -> None:
    """Save the payload as torch.save does ("zip", "legacy") or as a bare pickle."""
    if form == "pickle":
        path.write_bytes(pickle.dumps({"state": Payload(marker)}, protocol=2))
    else:
        torch.save({"state": Payload(marker)}, path, _use_new_zipfile_serialization=form == "zip")


def copied(model: Path, folder: Path, **files: dict[str, Any]) -> Path:
    """A copy of a model or run; `config={…}` adds keys to config.json, a value of None removes one."""
    shutil.copytree(model, folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        data = {**json.loads(path.read_text(encoding="utf-8")), **changes}
        path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}), encoding="utf-8")
    return folder


def code_that_marks(marker: Path, name: str = "Own") -> str:
    """A module for auto_map: it makes the marker when it is imported."""
    return (
        f"import os\nos.mkdir({str(marker)!r})\nfrom transformers import BertConfig, BertModel, BertTokenizerFast\n\n\n"
        + (
            f"class {name}Config(BertConfig):\n    model_type = 'own'\n\n\nclass {name}Model(BertModel):\n    pass\n\n\n"
            f"class {name}Tokenizer(BertTokenizerFast):\n    pass\n"
        )
    )
