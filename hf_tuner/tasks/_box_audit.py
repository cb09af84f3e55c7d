"""What is wrong or odd in pictures with boxes: their format, boxes outside, labels, pictures without any."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hf_tuner.catalog import nearest
from hf_tuner.errors import UsageError
from hf_tuner.tasks._boxes import Format, clipped, faults, infer
from hf_tuner.tasks._labels import natural
from hf_tuner.tasks._task import Findings
from hf_tuner.tasks._vision import columns_of

NAMED = 8


def sizes_of(rows: Any) -> list[tuple[int, int]]:
    """Width and height of every picture."""
    return list(zip(rows["width"][:], rows["height"][:], strict=True))


def format_of(rows: Any, asked: str) -> Format:
    """The format of the boxes of training rows: as told, as the data state, or as their boxes prove."""
    written = next((text for text in rows["written"][:] if text), "")
    if asked == "auto" and written:
        return Format(written, f"{written}, as the files' format says")
    return infer(rows["boxes"][:], sizes_of(rows), asked)


def names_of(rows: Any) -> tuple[str, ...]:
    """The labels of rows in natural order."""
    return tuple(sorted({label for labels in rows["labels"][:] for label in labels}, key=natural))


def box_findings(data: Mapping[str, Any], asked: str, bad: str) -> Findings:
    """The findings in all splits. Raises UsageError for training rows without boxes, or in no format."""
    found = Findings()
    if "boxes" not in data["train"].column_names:
        raise UsageError(f"no boxes in the training rows; found: {columns_of(data['train'])}; "
                         "expected a column `objects` with bbox and category, or --columns boxes=COLUMN,labels=COLUMN")  # fmt: skip
    form, names = format_of(data["train"], asked), names_of(data["train"])
    if not names:
        raise UsageError("no picture has a box; there is nothing to learn")
    found.lines["boxes"] = form.proof
    found.facts["box_format"] = form.name
    for split, rows in data.items():
        if "boxes" in rows.column_names:
            _of_split(found, split, rows, form.name, bad)
            tell_unknown(found, split, rows["labels"][:], names)
    return found


def _of_split(found: Findings, split: str, rows: Any, form: str, bad: str) -> None:
    empty = cut = twice = total = 0
    for row, (boxes, labels, (width, height)) in enumerate(
        zip(rows["boxes"][:], rows["labels"][:], sizes_of(rows), strict=True)
    ):
        empty, total = empty + (not boxes), total + len(boxes)
        wrong = faults(boxes, form, width, height) if boxes else []
        cut += len(wrong)
        if wrong and bad == "refuse":
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            cure = "--bad-boxes clip cuts boxes to the picture and leaves out those without an area"
            found.errors.append(
                (split, row, f"{wrong[0]}{more}, read as {form}; {cure}, --box-format says how to read them")
            )
        twice += len(boxes) - len({(*box, label) for box, label in zip(boxes, labels, strict=True)})
    counts = Counter(label for labels in rows["labels"][:] for label in labels)
    named = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(NAMED))
    found.lines[split] = f"{total:,} boxes ({named}{', …' if len(counts) > NAMED else ''})" + (
        f"; {empty:,} pictures without boxes" if empty else ""
    )
    found.facts.setdefault("boxes", {})[split] = {"boxes": total, "empty": empty, "faulty": cut, "repeated": twice}
    if "crowds" in rows.column_names and (crowds := sum(map(len, rows["crowds"][:]))):
        found.lines[split] += f"; {crowds:,} boxes around crowds: not learned, and no fault to find"
    if split == "train":
        found.facts["classes"] = dict(counts)
    if cut and bad == "clip":
        found.warnings.append(
            f"{split}: {cut:,} of {total:,} boxes are cut to their picture or left out (--bad-boxes clip)"
        )
    if twice:
        found.warnings.append(f"{split}: {twice:,} boxes stand twice in their picture, with the same label")


def tell_unknown(found: Findings, split: str, rows: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Rows with a label that is not among `names`, with the nearest one that is."""
    known = set(names)
    for row, labels in enumerate(rows):
        other = next((label for label in labels if label not in known), None)
        if other is not None:
            close = nearest(other, list(names))
            hint = f'; did you mean "{close}"?' if close else f"; it knows {', '.join(names[:NAMED])}"
            found.errors.append((split, row, f'label "{other}" is not among those of the training rows{hint}'))


def encoded_boxes(boxes: Any, labels: Sequence[str], form: str, size: tuple[int, int], ids: Mapping[str, int],
                  ) -> tuple[list[list[float]], list[int]]:  # fmt: skip
    """Corners in pixels, cut to the picture of `size` (width, height), and class ids; boxes without an area are left out."""
    corners, kept = clipped(boxes, form, *size)
    return corners.tolist(), [ids[label] for label, good in zip(labels, kept, strict=True) if good]


def encoded_crowds(batch: Mapping[str, Sequence[Any]], form: str, ids: Mapping[str, int]) -> dict[str, list[Any]]:
    """The boxes around crowds of each row, {"crowds": [[corners], …], "crowd_labels": [ids]}; other labels are left out."""
    pairs = []
    columns = (batch[name] for name in ("crowds", "crowd_labels", "width", "height"))
    for boxes, labels, width, height in zip(*columns, strict=True):
        known = [(box, label) for box, label in zip(boxes, labels, strict=True) if label in ids]
        pairs.append(
            encoded_boxes([box for box, _ in known], [label for _, label in known], form, (width, height), ids)
        )
    return {"crowds": [boxes for boxes, _ in pairs], "crowd_labels": [labels for _, labels in pairs]}


def expected_boxes(ready: Any) -> list[Any]:
    """Corners in pixels, class and whether it is around a crowd [boxes, 6] of each encoded picture."""
    import numpy as np

    def part(boxes: str, labels: str, crowd: int) -> list[Any]:
        if boxes not in ready.column_names:
            return [np.zeros((0, 6))] * len(ready)
        plain = ready.select_columns([boxes, labels]).with_format(None)
        return [np.array([[*box, label, crowd] for box, label in zip(*row, strict=True)], float).reshape(-1, 6)
                for row in zip(plain[boxes][:], plain[labels][:], strict=True)]  # fmt: skip

    pairs = zip(part("boxes", "labels", 0), part("crowds", "crowd_labels", 1), strict=True)
    return [np.concatenate(pair) for pair in pairs]
