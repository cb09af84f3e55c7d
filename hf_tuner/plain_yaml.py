"""YAML as configurations need it: plain values, of bounded size; nothing in a file can run, grow or hide."""

from collections import Counter
from pathlib import Path
from typing import Any

from hf_tuner.errors import TunerError, UsageError

BYTES, DEPTH = 1_000_000, 20


def read_yaml(
    path: Path, what: str = "", wrong: type[TunerError] = UsageError, *, words: bool = False
) -> dict[str, Any]:
    """Read `key: value` lines: no tags, no duplicate keys, no anchors, at most 1 MB and 20 levels.

    `what` comes before the path in messages ("--config "). With `words` a value is the word one would type, for its reader
    to make a number or true of: 7e12345, 0123456 and no may be names. Dates are never made of anything.

    Raises `wrong` that names the file and the line.
    """
    import yaml

    try:
        there = path.is_file()
    except OSError:  # a name of thousands of characters
        there = False
    if not there:
        raise wrong(f"{what}{str(path)[:200]}: no such file")
    if path.stat().st_size > BYTES:
        raise wrong(f"{what}{path}: over 1 MB; a configuration is a page or two")
    Strict = _strict(path, wrong, words)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=Strict)  # noqa: S506 - Strict is a SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: the 13th month, a number of 5000 digits
        raise wrong(f"{path} is not plain YAML: {' '.join(str(error).split())[:300]}") from error
    except OSError as error:
        raise wrong(f"{what}{path} cannot be read: {error.strerror}") from error
    if not isinstance(data, dict) or not all(isinstance(k, str) for k in data):
        raise wrong(f"{path}: expected lines of the form `key: value`")
    return data


def _line(what: Any) -> int:
    return int(what.start_mark.line) + 1


def _strict(path: Path, wrong: type[TunerError], words: bool) -> Any:
    import yaml

    class Strict(yaml.SafeLoader):
        depth = 0

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            line = _line(node)
            if not all(isinstance(k, yaml.ScalarNode) for k, _ in node.value):
                raise wrong(f"{path} line {line}: a key is one word, not a list or a mapping")
            keys = Counter(k.value for k, _ in node.value)
            if "<<" in keys:
                raise wrong(f"{path} line {line}: << takes keys over from elsewhere; write them out")
            twice = sorted(key for key, times in keys.items() if times > 1)
            if twice:
                raise wrong(f'{path} line {line}: key "{twice[0][:60]}" is given twice')
            return super().construct_mapping(node, deep)

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent):
                # Nine lines of aliases to aliases stand for 10^9 values.
                raise wrong(f"{path} line {_line(event)}: *{event.anchor} repeats a value by name; write it out")
            if getattr(event, "anchor", None):
                raise wrong(f"{path} line {_line(event)}: &{event.anchor} gives a value a name; write it without")
            if getattr(event, "tag", None):
                raise wrong(f"{path} line {_line(event)} is not plain YAML: tags such as {event.tag} are not read")
            self.depth += 1
            if self.depth > DEPTH:
                raise wrong(f"{path}: nested deeper than {DEPTH} levels")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    plain = (":timestamp", *((":int", ":float", ":bool") if words else ()))
    Strict.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(plain)]
        for first, pairs in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
    }
    return Strict
