"""What is wrong, odd or worth a line in the masks of all splits."""

from collections.abc import Callable, Mapping
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._masks import FOUND, Code, counted
from hf_tuner.tasks._task import Findings

Found = Mapping[str, Mapping[int, int]]
"""Split → number in the masks → pixels."""
MUCH = 0.5
"""Share of ignored pixels that is worth a warning."""
NO_CLASS = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "unannotated", "don't care")


def found_in(data: Mapping[str, Any]) -> Found:
    """Pixels of each number by split: as the audit counted them, or counted now. Raises UsageError for bad masks."""
    known = getattr(data, "tuner_notes", {}).get("audit", {}).get(FOUND)
    if known is not None:
        return {split: {int(number): n for number, n in pixels.items()} for split, pixels in known.items()}
    found: dict[str, dict[int, int]] = {}
    for split, rows in data.items():
        total = found.setdefault(split, {})
        for one in counted(rows):
            if isinstance(one, UsageError):
                raise one
            _add(total, one[1])
    return found


def mask_findings(data: Mapping[str, Any], code_of: Callable[[Found], Code]) -> Findings:
    """Findings of the rows' masks; `code_of` says what their numbers mean. Raises UsageError where nothing can be learnt."""
    result = Findings()
    found: dict[str, dict[int, int]] = {}
    held: dict[str, list[dict[int, int]]] = {}
    for split, rows in data.items():
        total, each = found.setdefault(split, {}), held.setdefault(split, [])
        sizes = list(zip(rows["height"], rows["width"], strict=True))
        for row, one in enumerate(counted(rows)):
            if isinstance(one, UsageError):
                result.errors.append((split, row, str(one)))
                continue
            if one[0] != sizes[row]:
                result.errors.append((split, row, _other_size(one[0], sizes[row])))
            _add(total, one[1])
            each.append(one[1])
    if result.errors:
        return result
    code = code_of(found)
    known = {*code.ids, *code.ignored}
    for split, each in held.items():
        for row, pixels in enumerate(each):
            if strange := sorted(set(pixels) - known):
                result.errors.append((split, row, f"the mask holds {code.strangers(strange)}"))
    result.facts[FOUND] = {split: {str(number): n for number, n in sorted(ids.items())} for split, ids in found.items()}
    if result.errors:
        return result
    _tell(result, found, held, code)
    return result


def _tell(result: Findings, found: Found, held: Mapping[str, list[dict[int, int]]], code: Code) -> None:
    train = {name: found["train"].get(number, 0) for number, name in zip(code.ids, code.names, strict=True)}
    there = [name for name, n in train.items() if n]
    if len(there) < 2:
        only = f'one class only ("{there[0]}")' if there else "no pixel of a class"
        raise UsageError(f"the masks of train hold {only}: nothing to learn; they need at least two classes")
    covered, everything = sum(train.values()), sum(found["train"].values())
    ordered = sorted(train.items(), key=lambda pair: -pair[1])
    shown = ", ".join(f"{name} {n / covered:.1%}" for name, n in ordered[:8] if n)
    result.lines["classes"] = code.note
    ignored = f"{1 - covered / everything:.1%} of the pixels ignored; " if covered < everything else ""
    result.lines["masks"] = f"{ignored}{shown}" + (", …" if len(ordered) > 8 else "")
    for number, name in zip(code.ids, code.names, strict=True):
        if name.strip().lower() in NO_CLASS and train[name]:
            result.warnings.append(f'the class "{name}" sounds like pixels without a class: --ignore-index {number} leaves them '
                                   "out of training and scores")  # fmt: skip
    if 1 - covered / everything > MUCH:
        result.warnings.append(f"train: {1 - covered / everything:.0%} of the pixels are ignored "
                               f"({', '.join(map(str, code.ignored))}); is one of these a class? (--ignore-index -1 "
                               "ignores none)")  # fmt: skip
    if unseen := [name for name, n in train.items() if not n]:
        named = ", ".join(unseen[:8]) + (", …" if len(unseen) > 8 else "")
        result.warnings.append(f"{len(unseen)} of {len(code.ids)} classes are in no mask of train: {named}")
    for split, each in held.items():
        empty = sum(not set(pixels) & set(code.ids) for pixels in each)
        if empty:
            result.warnings.append(f"{split}: {empty:,} of {len(each):,} masks hold nothing but ignored pixels")


def _other_size(mask: tuple[int, int], picture: tuple[int, int]) -> str:
    said = f"the mask has {mask[1]} × {mask[0]} pixels, its picture {picture[1]} × {picture[0]}"
    turned = mask == picture[::-1]
    return f"{said}: turned by its EXIF data, the mask is not?" if turned else f"{said}; they must be alike"


def _add(total: dict[int, int], pixels: Mapping[int, int]) -> None:
    for number, n in pixels.items():
        total[number] = total.get(number, 0) + n
