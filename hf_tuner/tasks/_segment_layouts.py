"""How pictures with segments come in data: canonical rows have `segments` (as text), `labels` (names) and `crowds`, or a map."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._segments import as_text
from hf_tuner.tasks._task import Layout, RowError
from hf_tuner.tasks._vision import PICTURES, picture_columns

MAPS = ("map", "segmentation_map", "instance_map", "panoptic_map", "panoptic_segmentation", "panoptic", "annotation", "mask",
        "label", "masks", "annotations", "map_file_name", "mask_file_name", "map_path", "mask_path")  # fmt: skip
INFOS = ("segments_info", "segments")
OBJECTS = ("objects", "annotations", "annotation", "instances", "segments", "targets")
SEGMENTATIONS = ("segmentation", "segmentations", "polygons", "polygon", "rle", "masks", "mask")
LABELS = ("category", "label", "labels", "categories", "category_id", "label_id", "class", "classes", "category_name",
          "class_name", "name")  # fmt: skip
CROWDS = ("iscrowd", "is_crowd", "crowd")
THINGS = ("isthing", "is_thing")
NAMES = "semantic_class_to_id"
"""Column of class names, as data for the official instance segmentation example has it."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": PICTURES, "map": MAPS, "infos": INFOS, "objects": OBJECTS, "segments": SEGMENTATIONS, "labels": LABELS,
    "names": (NAMES,),
}  # fmt: skip
TARGETS = ("map", "infos", "objects", "segments", "labels", "crowds", "things", "names", "written")


def segment_layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """A column of pictures, and segments: in a column of objects, in two columns, in a map, or in a map and what it holds.

    Raises UsageError when there is no picture, and for segments without labels.
    """
    found = picture_columns(features, given, {"image": PICTURES})
    found["map"] = found.get("map") or _map(features, first, set(found.values()))
    found["infos"] = found.get("infos") or _nested(features, first, INFOS, LABELS)
    found["objects"] = found.get("objects") or _nested(features, first, OBJECTS, SEGMENTATIONS)
    if found["map"] and found["infos"]:
        return _nest(found, "infos", features, first, ("id", "segment_id"), "map")
    if found["objects"]:
        return _nest(found, "objects", features, first, SEGMENTATIONS)
    for name, known in (("segments", SEGMENTATIONS), ("labels", LABELS)):
        column = next((c for n in known for c in features if c.lower() == n and c != found["map"]), "")
        found[name] = found.get(name) or column
    if found["segments"] and not found["map"]:
        return _columns(found, features)
    if not found["map"]:
        return Layout("pictures", {"image": found["image"]}, lambda row: {})
    names = found.get("names") or next((c for c in features if c == NAMES), "")

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        return {"written": json.dumps(_class_names(row[names])) if names else ""}

    kept = {"image": found["image"], "map": found["map"], **({"names": names} if names else {})}
    return Layout("pictures and maps of class and instance", kept, convert)


def _columns(found: Mapping[str, str], features: Mapping[str, Any]) -> Layout:
    if not found["labels"]:
        raise UsageError(f'segments in "{found["segments"]}" without labels; found: {", ".join(features)}; '
                         "name them: --columns segments=COLUMN,labels=COLUMN")  # fmt: skip
    names = _named(features[found["labels"]])

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        segments = row[found["segments"]] or []
        return _row(segments, row[found["labels"]] or [], [False] * len(segments), names)

    kept = {name: found[name] for name in ("image", "segments", "labels")}
    return Layout("pictures, segments and labels", kept, convert)


def _nest(found: Mapping[str, str], name: str, features: Mapping[str, Any], first: Sequence[dict[str, Any]],
          accepted: Sequence[str], *more: str) -> Layout:  # fmt: skip
    """Rows whose objects are a dictionary of lists, or a list of dictionaries."""
    column = found[name]
    inner, fields = _inside(features[column], [row[column] for row in first])
    segments, labels, crowds, things = (next((n for n in known if n in fields), "")
                                        for known in (accepted, LABELS, CROWDS, THINGS))  # fmt: skip
    if not segments or not labels:
        raise UsageError(f'column "{column}" has {", ".join(fields) or "no fields"}; expected segments '
                         f"({', '.join(accepted[:3])}) and labels ({', '.join(LABELS[:3])} …)")  # fmt: skip
    named = _named(inner[labels]) if isinstance(inner, Mapping) else None

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        value = row[column]

        def every(field: str, other: Any) -> list[Any]:
            if not field:
                return [other] * len(every(segments, None))
            if isinstance(value, Mapping):
                return list(value[field] if value[field] is not None else ())
            return [one.get(field) for one in value or []]

        kinds = [bool(one) for one in every(things, False)] if things else []
        return {**_row(every(segments, None), every(labels, ""), every(crowds, False), named), "things": kinds}

    kept = {one: found[one] for one in ("image", name, *more)}
    what = "pictures, maps and their segments" if name == "infos" else f"pictures and objects ({segments}, {labels})"
    return Layout(what, kept, convert)


def _row(segments: Sequence[Any], labels: Sequence[Any], crowds: Sequence[Any], names: Callable[[int], str] | None,
         ) -> dict[str, Any]:  # fmt: skip
    """A canonical row. Raises RowError for segments that are none, and for other labels than segments."""
    if len(segments) != len(labels):
        raise RowError(f"{len(segments)} segments and {len(labels)} labels; expected one label a segment")
    try:
        made = [str(one) if type(one) is int else as_text(one, place) for place, one in enumerate(segments, 1)]
    except ValueError as error:
        raise RowError(str(error)) from error
    said = [names(one) if names and isinstance(one, int) else "" if one is None else str(one).strip() for one in labels]
    if "" in said:
        raise RowError(f"segment {said.index('') + 1} has no label")
    return {"segments": made, "labels": said, "crowds": [bool(one) for one in crowds], "things": [], "written": ""}


def _map(features: Mapping[str, Any], first: Sequence[dict[str, Any]], taken: set[str]) -> str:
    """The column of maps: pictures, or paths under a name of maps; "" when there is none."""

    def holds(column: str) -> bool:
        kind = type(features[column]).__name__
        value = next((row[column] for row in first if row[column]), None)
        path = isinstance(value, str) and value.lower().endswith((".png", ".tif", ".tiff", ".bmp"))
        return kind == "Image" or path or (isinstance(value, Mapping) and set(value) == {"bytes", "path"})

    named = [c for n in MAPS for c in features if c.lower() == n and c not in taken and holds(c)]
    pictures = [c for c, f in features.items() if type(f).__name__ == "Image" and c not in taken]
    return next(iter((*named, *pictures)), "")


def _nested(
    features: Mapping[str, Any], first: Sequence[dict[str, Any]], names: Sequence[str], inside: Sequence[str]
) -> str:
    """The column of one of these names that has a field of one of those; "" when there is none."""
    for column in (c for n in names for c in features if c.lower() == n):
        if set(_inside(features[column], [row[column] for row in first])[1]) & set(inside):
            return column
    return ""


def _inside(feature: Any, values: Sequence[Any]) -> tuple[Any, list[str]]:
    """What a column of dictionaries or lists of them holds, and the names of its fields."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    if isinstance(inner, Mapping):
        return inner, list(inner)
    example: Any = next((one for one in values if one), {})
    one = example[0] if isinstance(example, list) else example
    return inner, list(one) if isinstance(one, Mapping) else []


def _named(feature: Any) -> Callable[[int], str] | None:
    """Names of class ids where the data knows them."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return (lambda index: names[index] if 0 <= index < len(names) else str(index)) if names else None


def _class_names(value: Any) -> dict[str, str]:
    """{"1": "wall"} of {"wall": 1}, [["wall", 1]], [{"id": 1, "name": "wall"}], or JSON of these. Raises RowError for others."""
    try:
        given = json.loads(value) if isinstance(value, str) and value.strip() else value or []
        rows = given.items() if isinstance(given, Mapping) else [_pair(one) for one in given]
        pairs = [(name, number) for name, number in rows if number is not None]
    except (ValueError, KeyError, TypeError, RecursionError):
        pairs = [(None, None)]
    if not all(isinstance(name, str) and type(number) is int for name, number in pairs):
        raise RowError(
            f'column "{NAMES}" holds {str(value)[:60]}; expected names and their numbers: {{"wall": 1, "sky": 2}}'
        )
    return {str(number): name for name, number in pairs}


def _pair(one: Any) -> tuple[Any, Any]:
    """Name and number of {"id", "name"}, or of a pair."""
    name, number = (one["name"], one["id"]) if isinstance(one, Mapping) else one
    return name, number
