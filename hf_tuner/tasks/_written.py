"""Code for the card that writes texts with plain transformers, as `evaluate` does."""

import json
from typing import Any

from hf_tuner.tasks._task import Usage


def written_usage(task: Any, max_length: int, reads: str, example: str, answer: str) -> Usage:
    """Lines that read `texts` and print what `model` writes for each, with the task's own search."""
    usual = {
        "length_penalty": 1.0,
        "early_stopping": False,
        "no_repeat_ngram_size": 0,
        "min_length": 0,
        "do_sample": False,
    }
    search = {name: value for name, value in task.search().items() if usual.get(name, ...) != value}
    lines = [f"tokenizer.src_lang = {_source(task.source_code)}"] if task.source_code else []
    lines += [f"tokenizer.tgt_lang = {_source(task.target_code)}"] if task.target_code else []
    lines += ['tokenizer.padding_side = "left"'] if task.alone else []
    before = task.opening + (task.source_prefix or "")
    parts = [_source(before)] if before else []
    parts += ["text", *([_source(task.source_suffix)] if task.alone else [])]
    read = f"[{' + '.join(parts)} for text in texts]" if len(parts) > 1 else "texts"
    plain = "add_special_tokens=False" if task.alone else f"truncation=True, max_length={max_length}"
    lines += [
        f"texts = {example}",
        *(_shortened(task, max_length, before) if task.alone else []),
        f'inputs = tokenizer({read}, return_tensors="pt", padding=True,',
        f"                   return_token_type_ids=False, {plain})",
        "model.eval()",
        f"ids = model.generate(**inputs, {', '.join(f'{name}={value!r}' for name, value in search.items())})",
        *(['ids = ids[:, inputs["input_ids"].shape[1] :]'] if task.alone else []),
        "print(tokenizer.batch_decode(ids, skip_special_tokens=True))",
    ]
    return Usage(reads=reads, example=example, answer=answer, lines=tuple(lines), verb="write")


def _shortened(task: Any, max_length: int, before: str) -> list[str]:
    """Lines that cut `texts`, so that what follows a text and what is written have room."""
    longest = max_length - min(task.max_target_length, max_length // 2)
    return [
        f"room = {longest} - len(tokenizer({_source(before + task.source_suffix)}, add_special_tokens=False).input_ids)",
        "places = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=room,",
        '                   return_offsets_mapping=True)["offset_mapping"]',
        "texts = [text[: place[-1][1]] for text, place in zip(texts, places)]",
    ]


def _source(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
