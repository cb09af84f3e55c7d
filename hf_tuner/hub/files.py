"""The allow-list: the only files of a run that ever leave this machine, or are fetched of somebody else's."""

from pathlib import Path

from hf_tuner.hub.manifest import FILE

WEIGHTS = ("adapter_config.json", "adapter_model*.safetensors", "config.json", "generation_config.json", "model*.safetensors",
           "model.safetensors.index.json")  # fmt: skip
PROCESSOR = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
             "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "*.bpe.model", "chat_template.jinja",
             "preprocessor_config.json", "processor_config.json")  # fmt: skip
RECORDS = (FILE, "run.yaml", "report.json", "README.md", "figures/*.png")
PLAIN = (".json", ".txt", ".model", ".jinja")
"""Kinds of files that a processor may save under a name of its own; none of them can run code."""
PUBLIC = (*WEIGHTS, *PROCESSOR, *RECORDS)
"""Patterns of the only files that ever leave this machine, besides the processor's own plain ones."""
FETCHED = (*PUBLIC, *(f"*{kind}" for kind in PLAIN))
"""Patterns of what is fetched of a run."""


def public_files(folder: Path, patterns: tuple[str, ...] = PUBLIC) -> list[Path]:
    """Files of a folder that are on the allow-list, relative to it and sorted; links are not followed."""
    found = {p.relative_to(folder) for pattern in patterns for p in folder.glob(pattern)}
    return sorted(p for p in found if (folder / p).is_file() and not (folder / p).is_symlink())
