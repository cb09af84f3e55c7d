"""The process that renders a chat template: JSON {"template", "values": [one of each text]} in, out a list of answers,
JSON {"kind", "text", "spans"} each.

It is started by path, isolated (`python -I`), and imports jinja2 alone, so that it starts in a tenth of a second.
"""

import json
import re
import resource
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.nodes import CallBlock, Const, Filter, Getattr, Getitem, Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 5
MEMORY = 512 * 2**20
INTERNALS = re.compile(r"(^|\.)__\w+__($|\.)")
"""The name of an attribute, or a path of them, that no template has a use for; in prose it is only a word."""
LONGEST_ANSWER = 4_000_000
INSIDE = "inside: "


class Generation(Extension):
    """The tag that marks what an assistant says; its text stays as it is, and where it stands is noted."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.written = 0
        self.spans: list[tuple[int, int]] = []
        self.texts: list[str] = []

    def parse(self, parser: Parser) -> Node:
        """The block's own content."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("same"), [], [], body).set_lineno(line)

    def same(self, caller: Any) -> str:
        """What stands in the block, from where the text ends now."""
        text = str(caller())
        self.spans.append((self.written, self.written + len(text)))
        self.texts.append(text)
        return text

    def write(self, template: Any, values: dict[str, Any]) -> str:
        """The whole text; afterwards `spans` holds the start and end of every block in it.

        Raises TemplateError for a block inside a macro or a set block, whose text ends up elsewhere.
        """
        self.written, self.spans, self.texts, parts = 0, [], [], []
        for part in template.generate(**values):
            parts.append(part)
            self.written += len(part)
        whole = "".join(parts)
        if any(whole[start:end] != text for (start, end), text in zip(self.spans, self.texts, strict=True)):
            raise TemplateError(
                "its generation marks stand inside a macro or a set block: where they end up is not told"
            )
        return whole


def limit() -> None:
    """From here on: 5 seconds, 512 MB, no file written, no process started."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def rendered(template: str, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """{"kind": "text" | "refused" | "unsafe", "text", "spans"} for each of `values`."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    made: list[Any] = []

    def read() -> str:
        if found := next(internals(environment.parse(template)), None):
            raise SecurityError(INSIDE + found[:40])
        made.append(environment.from_string(template))
        return ""

    broken = _answer(read)
    if broken["kind"] != "text":
        return [broken] * len(values)
    marks: Any = environment.extensions[Generation.identifier]
    return [_answer(partial(marks.write, made[0], one), marks) for one in values]


def _answer(write: Callable[[], str], marks: Any = None) -> dict[str, Any]:
    """What `write` gives, or how it failed."""
    try:
        text = write()
    except SecurityError as error:
        said = str(error)
        if said.startswith(INSIDE):
            return {"kind": "unsafe", "text": f"reaches for Python's internals ({said.removeprefix(INSIDE)})"}
        return {"kind": "unsafe", "text": f"tries to leave its sandbox ({said[:80]})"}
    except TemplateSyntaxError as error:
        return {"kind": "unsafe", "text": f"is not a template ({str(error)[:80]})"}
    except (MemoryError, OverflowError, RecursionError):
        return {"kind": "unsafe", "text": "takes too much memory"}
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        return {"kind": "refused", "text": str(error)[:200]}
    if len(text) > LONGEST_ANSWER:
        return {"kind": "unsafe", "text": "makes a text without end"}
    return {"kind": "text", "text": text, "spans": marks.spans if marks else []}


def internals(tree: Node) -> Iterator[str]:
    """Attributes of Python's internals that a template names; what it puts together at work is the sandbox's."""
    names: list[Any] = [node.attr for node in tree.find_all(Getattr)]
    values = [node.arg for node in tree.find_all(Getitem)]
    for node in tree.find_all(Filter):
        values += [k.value for k in node.kwargs if k.key == "attribute"] + (node.args if node.name == "attr" else [])
    names += [value.value for value in values if isinstance(value, Const)]
    yield from (name for name in names if isinstance(name, str) and INTERNALS.search(name))


def _raise(message: str) -> None:
    raise TemplateError(message)


def main() -> None:
    """Read a task, render it, answer."""
    task = json.loads(sys.stdin.buffer.read())
    limit()
    sys.stdout.write(json.dumps(rendered(task["template"], task["values"])))


if __name__ == "__main__":
    main()
