"""Chat templates are programs of a stranger: they are rendered in a process of their own, with limits.

That process has 5 seconds of computing (60 by the clock), little memory, no file to write, no environment and so no
token. Jinja's sandbox keeps a template from Python's internals, not from loops without end.
"""

import functools
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_tuner.errors import ArtifactError, EnvironmentFault

LONGEST = 64_000
"""Longest template in bytes; the longest in use have about 20,000."""
MOST_TEMPLATES = 16
SECONDS = 5
AT_ONCE = 200
"""Conversations rendered by one process."""
CLOCK = 60
"""A busy machine may take that long for 5 seconds of computing."""
START = "import runpy, sys; sys.path.extend(sys.argv[2:]); runpy.run_path(sys.argv[1], run_name='__main__')"
"""The renderer is isolated from the user's own packages, where jinja2 may be: its folder is told."""
MISSING = re.compile(r"No module named .*|.*loading shared librar.*")
NAME = re.compile(r"[\w-]{1,64}")
TRIAL = ({"role": "user", "content": "Good morning."}, {"role": "assistant", "content": "Good morning to you."})


def check_templates(templates: str | Mapping[str, str] | None, source: str) -> None:
    """Look at a tokenizer's chat template, or at all of its named ones, and render each once.

    Raises ArtifactError for a name that could be a path, a template that is too long, reaches for Python's internals,
    does not end or takes too much memory. What it answers to other messages nobody can know: see `render`.
    """
    named = templates if isinstance(templates, Mapping) else {"default": templates} if templates else {}
    if len(named) > MOST_TEMPLATES:
        raise ArtifactError(
            f"the tokenizer of {source} brings {len(named)} chat templates; at most {MOST_TEMPLATES}: refused"
        )
    for name, template in named.items():
        where = f"the chat template of {source}"
        if not NAME.fullmatch(name):
            raise ArtifactError(f"{where} is called {name[:60]!r}, which could be a path: refused")
        if not isinstance(template, str) or len(template.encode("utf-8", "replace")) > LONGEST:
            raise ArtifactError(f"{where} is longer than {LONGEST:,} bytes: refused")
        _try(template, where)


@dataclass(frozen=True)
class Rendered:
    """What a template made of one conversation."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()
    """Start and end, in characters, of what stands between generation marks: the assistant's turns."""
    refused: str = ""
    """Why it refuses these messages; "" when it does not."""


def render(
    template: str, messages: Sequence[Mapping[str, Any]], where: str = "the chat template", **values: Any
) -> str:
    """The text that a template makes of messages, in the limits above.

    `values` are what else it may read (bos_token, add_generation_prompt …). Raises ArtifactError when it leaves the
    sandbox, does not end in time or takes too much memory, ValueError when it refuses these messages, EnvironmentFault
    when this machine cannot render.
    """
    made = render_all(template, [{"messages": list(messages), **values}], where)[0]
    if made.refused:
        raise ValueError(made.refused)
    return made.text


def render_all(template: str, values: Sequence[Mapping[str, Any]], where: str = "the chat template") -> list[Rendered]:
    """The texts that a template makes of many conversations, AT_ONCE in a process; errors as for `render`.

    Each of `values` is what the template may read: {"messages": …, "add_generation_prompt": …}.
    """
    made: list[Rendered] = []
    for start in range(0, len(values), AT_ONCE):
        made += _render(template, list(values[start : start + AT_ONCE]), where)
    return made


def _render(template: str, values: list[Mapping[str, Any]], where: str) -> list[Rendered]:
    """A share of the conversations; those that together take too long are tried in halves."""
    script = str(Path(__file__).with_name("template_renderer.py"))
    command = [sys.executable, "-I", "-c", START, script, *_packages()]
    task = json.dumps({"template": template, "values": values}).encode()
    try:
        done = subprocess.run(command, input=task, capture_output=True, timeout=CLOCK, env={}, check=False)
        answers = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(
            f"{where} was not rendered within {CLOCK} seconds: the machine is too busy; try again"
        ) from None
    except ValueError:  # the process ended before it could answer: by its limits, or it never began
        if missing := MISSING.search(done.stderr.decode(errors="replace")):
            raise EnvironmentFault(f"chat templates cannot be rendered here ({missing[0][:200]}): pip install jinja2, or mend "
                                   f"the Python at {sys.executable}") from None  # fmt: skip
        if len(values) > 1:
            half = len(values) // 2
            return _render(template, values[:half], where) + _render(template, values[half:], where)
        raise ArtifactError(
            f"{where} does not end within {SECONDS} seconds, or takes too much memory: refused"
        ) from None
    return [_rendered(answer, where) for answer in answers]


def _rendered(answer: Mapping[str, Any], where: str) -> Rendered:
    if answer["kind"] == "unsafe":
        raise ArtifactError(f"{where} {answer['text']}: refused")
    if answer["kind"] == "refused":
        return Rendered("", (), answer["text"] or "no reason given")
    return Rendered(str(answer["text"]), tuple((int(a), int(b)) for a, b in answer["spans"]))


def _packages() -> list[str]:
    """The folders that jinja2 and what it needs are installed in."""
    found = [importlib.util.find_spec(name) for name in ("jinja2", "markupsafe")]
    return sorted({str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin})


@functools.cache
def _try(template: str, where: str) -> None:
    with suppress(ValueError):  # it wants other messages: its own business
        render(template, TRIAL, where, add_generation_prompt=False, bos_token="", eos_token="", tools=None)
