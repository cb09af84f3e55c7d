"""The process that renders a chat template: JSON {"template", "values"} in, JSON {"kind", "text"} out.

It is started by path, isolated (`python -I`), and imports jinja2 alone, so that it starts in a tenth of a second.
"""

import json
import re
import resource
import sys
from collections.abc import Iterator
from datetime import datetime
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


class Generation(Extension):
    """The tag that marks what an assistant says; its text stays as it is."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> Node:
        """The block's own content."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("same"), [], [], body).set_lineno(line)

    def same(self, caller: Any) -> str:
        """What stands in the block."""
        return str(caller())


def limit() -> None:
    """From here on: 5 seconds, 512 MB, no file written, no process started."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def rendered(template: str, values: dict[str, Any]) -> dict[str, str]:
    """{"kind": "text" | "refused" | "unsafe", "text"}."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    try:
        if found := next(internals(environment.parse(template)), None):
            return {"kind": "unsafe", "text": f"reaches for Python's internals ({found[:40]})"}
        text = environment.from_string(template).render(**values)
    except SecurityError as error:
        return {"kind": "unsafe", "text": f"tries to leave its sandbox ({str(error)[:80]})"}
    except TemplateSyntaxError as error:
        return {"kind": "unsafe", "text": f"is not a template ({str(error)[:80]})"}
    except (MemoryError, OverflowError, RecursionError):
        return {"kind": "unsafe", "text": "takes too much memory"}
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        return {"kind": "refused", "text": str(error)[:200]}
    if len(text) > LONGEST_ANSWER:
        return {"kind": "unsafe", "text": "makes a text without end"}
    return {"kind": "text", "text": text}


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
