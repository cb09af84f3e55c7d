"""What rows are read with: a tokenizer, an image processor or both, and how the task and the model go with it."""

from pathlib import Path
from typing import Any

from hf_tuner.config import Run
from hf_tuner.console import say
from hf_tuner.errors import ArtifactError, UsageError
from hf_tuner.models.foreign import is_timm, processor_of
from hf_tuner.models.load import bare_model, hub_errors, load_config, located
from hf_tuner.models.pooling import side_file
from hf_tuner.tasks._task import Task

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
NEEDED = {
    "AutoTokenizer": ("tokenizer", TOKENIZER_FILES, "tokenizer"),
    "AutoImageProcessor": ("image processor", IMAGE_FILES, "image_processor"),
    "AutoProcessor": ("processor", IMAGE_FILES, "processor"),
}
"""For each kind of processor: what it is called, the files it lies in, and its name in code."""


def load_processor(run: Run, task: Any = None) -> Any:
    """The processor of `run.model` of the task's kind, a tokenizer when there is no task, with a padding token.

    With a task it is made into what that task reads with, such as by a chat template (`Task.dress`). Raises
    ArtifactError when the model comes without the files.
    """
    source, commit = located(run)
    if task is not None and type(task).require_model is not Task.require_model:
        task.require_model(load_config(run), run.model)
    kind = getattr(task, "processor", "AutoTokenizer")
    what, files, word = NEEDED[kind]
    with hub_errors(what, source, commit):
        if kind == "AutoImageProcessor" and is_timm(source, commit):
            files = ("config.json",)
        if Path(source).is_dir() and not any((Path(source) / f).is_file() for f in files):
            raise ArtifactError(f"{source} has no {what} files ({', '.join(files[:3])}{' …' if len(files) > 3 else ''}); "
                                f"save the {what} beside the model: {word}.save_pretrained(folder)")  # fmt: skip
        processor = processor_of(kind, source, commit)
        _require_files(source, commit, what, files)
    tokenizer = tokenizer_in(processor)
    if tokenizer is not None and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if task is not None and (done := task.dress(processor)):
        say(f"{'template':<9} {done}")
    return processor


def tokenizer_in(processor: Any) -> Any | None:
    """The tokenizer that a processor is or holds; None for one that reads images only."""
    if hasattr(processor, "get_vocab"):
        return processor
    return getattr(processor, "tokenizer", None)


def load_task(run: Run, kind: Any, data: Any, processor: Any = None) -> Any:
    """The task of a class `kind` for these rows, as the run's model does it.

    `processor` is the model's (read when the task asks for it and it is not given). Raises UsageError for a model that
    cannot do the task.
    """
    task = kind.from_data(data, run)
    if kind.of_model is not Task.of_model:
        where = located(run)
        task = task.of_model(lambda name: side_file(name, *where))
    if kind.for_model is Task.for_model:
        return task
    return task.for_model(run, load_config(run), processor or load_processor(run, task), data)


def share_padding(model: Any, processor: Any) -> None:
    """Make the model skip what the tokenizer pads with, and stop writing where the tokenizer says that a text ends.

    Heads that read the last token look for the padding id; a chat template may end turns with another token than the
    model was made with.
    """
    bare, tokenizer = bare_model(model), tokenizer_in(processor)
    if tokenizer is None:
        return
    bare.config.pad_token_id = tokenizer.pad_token_id
    writes = getattr(bare, "generation_config", None) if bare.can_generate() else None
    if writes is not None and tokenizer.eos_token_id is not None:
        known = writes.eos_token_id if isinstance(writes.eos_token_id, list) else [writes.eos_token_id]
        ends = [end for end in known if end is not None]
        if tokenizer.eos_token_id not in ends:
            writes.eos_token_id = [tokenizer.eos_token_id, *ends]


def max_length(run: Run, processor: Any, config: Any) -> int:
    """Longest text in tokens: what was asked for, clamped to what positions and tokenizer can take (said); 0 without text."""
    tokenizer = tokenizer_in(processor)
    if tokenizer is None:
        return 0
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None) or 10**9
    if text.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer"):
        positions -= (getattr(text, "pad_token_id", 1) or 0) + 1  # positions start after the padding index
    can = min(positions, tokenizer.model_max_length)
    asked = run.max_length or 512
    if run.max_length and run.max_length > can:
        say(f"  note      --max-length {run.max_length} is more than the model's {can} positions; using {can}")
    if asked < 4:
        raise UsageError(f"--max-length {asked}: at least 4 (the special tokens need room)")
    return int(min(asked, can))


def check_vocabulary(processor: Any, config: Any) -> None:
    """Raise ArtifactError when the tokenizer can give ids that the embedding has no row for."""
    tokenizer = tokenizer_in(processor)
    if tokenizer is None:
        return
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rows = getattr(text, "vocab_size", None)
    top = max(tokenizer.get_vocab().values(), default=0)
    if rows is not None and top >= rows:
        raise ArtifactError(
            f"the tokenizer's largest id is {top}, the model embeds {rows} ids: they do not belong together"
        )


def _require_files(source: str, revision: str | None, what: str, files: tuple[str, ...]) -> None:
    """Raise ArtifactError for a repository without them: transformers makes up a tokenizer of five tokens."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return
    found = [f for f in files if isinstance(try_to_load_from_cache(source, f, revision=revision), str)]
    if not found:
        raise ArtifactError(f"{source} on the Hub has no {what} files ({', '.join(files[:3])}{' …' if len(files) > 3 else ''}); "
                            f"its owner has to push the {what} as well")  # fmt: skip
