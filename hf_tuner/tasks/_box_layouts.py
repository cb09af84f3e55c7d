"""How pictures with boxes come in data: canonical rows are `boxes` (as they are written) and `labels` (names)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._task import Layout, RowError
from hf_tuner.tasks._vision import picture_columns

STATED = "bbox_coco"
"""Name that the readers of COCO, VOC and YOLO folders give: its boxes are left, top, width, height in pixels."""
BOXES = ("bbox", "bboxes", "boxes", "box", STATED)
LABELS = ("category", "label", "labels", "categories", "class", "classes", "category_id", "category_name", "class_name",
          "class_labels", "name", "type")  # fmt: skip
CROWDS = ("iscrowd", "is_crowd")
OBJECTS = ("objects", "annotations", "annotation", "faces", "targets", "instances", "detections")


def box_layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str], pictures: Sequence[str],
               ) -> Layout:  # fmt: skip
    """A column of pictures, and boxes with labels: in a column of objects, or in two columns.

    Raises UsageError when there is no picture, or labels without boxes.
    """
    found = picture_columns(features, given, {"image": pictures})
    if not {"objects", "boxes"} & found.keys():
        objects = next((c for n in OBJECTS for c in features if c.lower() == n), None)
        if objects is not None:
            found["objects"] = objects
    if "objects" in found:
        return _objects(found, first, features[found["objects"]])
    for name, accepted in (("boxes", BOXES), ("labels", LABELS)):
        column = next((c for n in accepted for c in features if c.lower() == n), None)
        if name not in found and column is not None:
            found[name] = column
    if "boxes" not in found:
        return Layout("pictures", {"image": found["image"]}, lambda row: {})
    if "labels" not in found:
        raise UsageError(f'boxes in "{found["boxes"]}" without labels; found: {", ".join(features)}; '
                         "name them: --columns boxes=COLUMN,labels=COLUMN")  # fmt: skip
    names, told = _names(features[found["labels"]]), "written" in features

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        return _row(row[found["boxes"]], row[found["labels"]], names, row["written"] if told else "")

    return Layout("pictures, boxes and labels", {n: found[n] for n in ("image", "boxes", "labels")}, convert)


def _objects(found: Mapping[str, str], first: Sequence[dict[str, Any]], feature: Any) -> Layout:
    """Rows whose objects are a dictionary of lists, or a list of dictionaries."""
    column = found["objects"]
    inner = getattr(feature, "feature", feature)
    example: Any = next((v for v in (row[column] for row in first) if v), {})
    names = list(inner) if isinstance(inner, Mapping) else list(example if isinstance(example, Mapping) else example[0])
    boxes = next((n for n in BOXES if n in names), None)
    labels = next((n for n in LABELS if n in names), None)
    if boxes is None or labels is None:
        raise UsageError(f'column "{column}" has {", ".join(names) or "no fields"}; expected boxes ({", ".join(BOXES[:3])}) '
                         f"and labels ({', '.join(LABELS[:3])} …)")  # fmt: skip
    crowd = next((n for n in CROWDS if n in names), None)
    known, written = _names(inner[labels]) if isinstance(inner, Mapping) else None, "coco" if boxes == STATED else ""

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        value = row[column]
        if not isinstance(value, Mapping):
            value = {name: [one.get(name) for one in value or []] for name in names}
        made = _row(value[boxes], value[labels], known, written)
        return _apart(made, value[crowd]) if crowd else made

    return Layout(f"pictures and objects ({boxes}, {labels})", {n: found[n] for n in ("image", "objects")}, convert)


def _names(feature: Any) -> Callable[[int], str] | None:
    """Names of class ids where the data knows them."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return (lambda index: names[index] if 0 <= index < len(names) else str(index)) if names else None


def _row(boxes: Any, labels: Any, names: Callable[[int], str] | None, written: str) -> dict[str, Any]:
    """A canonical row; `written` is the format where the data state it.

    Raises RowError for boxes that are no four numbers, and for other labels than boxes."""
    boxes, labels = list(boxes if boxes is not None else ()), list(labels if labels is not None else ())
    if len(boxes) != len(labels):
        raise RowError(f"{len(boxes)} boxes and {len(labels)} labels; expected one label a box")
    made = []
    for number, box in enumerate(boxes, 1):
        try:
            four = [float(n) for n in box]
        except (TypeError, ValueError):
            four = []
        if len(four) != 4:
            raise RowError(f"box {number} is {box!r}; expected four numbers")
        made.append(four)
    said = [
        names(label) if names and isinstance(label, int) else "" if label is None else str(label).strip()
        for label in labels
    ]
    if "" in said:
        raise RowError(f"box {said.index('') + 1} has no label")
    return {"boxes": made, "labels": said, "written": written}


def _apart(row: dict[str, Any], crowd: Any) -> dict[str, Any]:
    """A canonical row whose boxes around crowds stand apart, in `crowds` and `crowd_labels`. Raises RowError for odd flags."""
    crowd = list(crowd if crowd is not None else ())
    if len(crowd) != len(row["boxes"]):
        raise RowError(f"{len(row['boxes'])} boxes, and {len(crowd)} times whether they are around crowds")

    def chosen(name: str, asked: bool) -> list[Any]:
        return [one for one, flag in zip(row[name], crowd, strict=True) if bool(flag) is asked]

    return {**row, "boxes": chosen("boxes", False), "labels": chosen("labels", False), "crowds": chosen("boxes", True),
            "crowd_labels": chosen("labels", True)}  # fmt: skip
