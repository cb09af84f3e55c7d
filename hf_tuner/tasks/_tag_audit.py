"""What a look at tags shows: which entities there are and how many, what was repaired, what training never sees."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_tuner.console import warn
from hf_tuner.errors import UsageError
from hf_tuner.tasks._tags import MARK, OUTSIDE, bio, is_marked, marking
from hf_tuner.tasks._task import Findings

SHOWN = 8


def tag_findings(data: Mapping[str, Any]) -> Findings:
    """Findings of canonical rows with `tags`."""
    found = Findings()
    tags = {split: rows["tags"][:] for split, rows in data.items() if "tags" in rows.column_names}
    if "train" not in tags:
        found.errors.append(("train", 0, "no column of tags or spans; name it: --columns tags=COLUMN or spans=COLUMN"))
        return found
    train = tags["train"]
    marked = is_marked(tag for row in train for tag in row)
    counted = {split: _count(rows, marked) for split, rows in tags.items()}
    words = sum(len(row) for row in train)
    found.facts["words"] = {split: sum(len(row) for row in rows) for split, rows in tags.items()}
    found.facts["tags"] = dict(counted["train"].most_common())
    if not counted["train"]:
        found.errors.append(
            ("train", 0, "no word of train has a tag but O: nothing to learn; is it the right column of tags?")
        )
    if len({tag for row in train for tag in row}) == 1 and counted["train"]:
        found.errors.append(("train", 0, "every word of train has the same tag: nothing to learn"))
    what = "entities" if marked else "tags"
    shown = ", ".join(f"{name} {n:,}" for name, n in counted["train"].most_common(SHOWN))
    more = f", … {len(counted['train']) - SHOWN} more" if len(counted["train"]) > SHOWN else ""
    found.lines["words"] = f"{words:,} in train, {words / max(1, len(train)):.0f} a row"
    found.lines[what] = f"{sum(counted['train'].values()):,} of {len(counted['train'])} kinds in train: {shown}{more}"
    if marked:
        _say_marking(found, tags)
    else:
        _say_plain(found, counted["train"])
    for split in counted:
        new = {name: n for name, n in counted[split].items() if name not in counted["train"]}
        if split != "train" and new and counted["train"]:
            found.warnings.append(
                f"{split}: {len(new)} kinds of {what} never seen in train, which cannot be found: {_listed(Counter(new))}"
            )
    return found


def require_known(rows: list[list[str]], names: Sequence[str], marked: bool) -> None:
    """Say which tags of rows a model with tags `names` (`marked`: in BIO) does not know, and what becomes of them.

    Raises UsageError when it knows none of them: the rows are of another task.
    """
    found = _count(rows, marked)
    known = {name[2:] if marked else name for name in names} - {"", OUTSIDE}
    bare = Counter(tag for row in rows for tag in row if marked and tag != OUTSIDE and not MARK.fullmatch(tag))
    new = Counter({name: n for name, n in found.items() if name not in known})
    if (found or bare) and len(new) == len(found):
        raise UsageError(
            f"none of the tags of these rows ({', '.join(sorted({*found, *bare})[:SHOWN])}) is among those of the model "
            f"({', '.join(sorted(known)[:SHOWN])}); give rows with the same names" + " and marks (B-, I-)" * bool(bare)
        )
    if new:
        what = "kinds of entities" if marked else "tags"
        warn(
            f"{what} that the model does not know: {_listed(new)}; they stay in the scores, each as one that was not found"
        )
    if bare:
        warn(f"tags that mark no entity (B-, I-): {_listed(bare)}; they are read as {OUTSIDE}")


def _listed(names: Counter[str]) -> str:
    return ", ".join(f"{name} ({n:,})" for name, n in names.most_common(SHOWN)) + ", …" * (len(names) > SHOWN)


def _count(rows: list[list[str]], marked: bool) -> Counter[str]:
    """How often each kind of entity begins, or each tag comes."""
    if not marked:
        return Counter(tag for row in rows for tag in row if tag != OUTSIDE)
    return Counter(tag[2:] for row in rows for tag in bio(row) if tag.startswith("B-"))


def _say_marking(found: Findings, tags: Mapping[str, list[list[str]]]) -> None:
    every = [row for rows in tags.values() for row in rows]
    kind, wrong = marking(every)
    changed = sum(a != b for row in every for a, b in zip(row, bio(row), strict=True))
    found.facts["marking"], found.facts["repaired"] = kind, changed
    found.lines["marking"] = kind if not changed else f"{kind}, read as BIO ({changed:,} tags written differently)"
    if kind == "BIO" and wrong:
        found.warnings.append(
            f"{wrong:,} tags go on with an entity (I-) that has not begun; each is read as its beginning (B-)"
        )


def _say_plain(found: Findings, names: Counter[str]) -> None:
    found.facts["marking"] = "none"
    found.lines["marking"] = "none (no B-, I-): each tag is a class of its own, scored word by word"
    marked = [name for name in names if MARK.fullmatch(name)]
    if marked:
        other = next(name for name in names if not MARK.fullmatch(name))
        found.warnings.append(
            f'tags such as "{marked[0]}" mark entities, "{other}" does not: all are taken as plain tags'
        )
    if names and all(name.lstrip("-").isdecimal() for name in names):
        found.warnings.append(
            "the tags are numbers without names, so no entities can be told from them; give their names"
        )
