"""What rows of reranking look like: a query with a passage, with a list of documents, or with positives and negatives."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hf_tuner.errors import UsageError
from hf_tuner.tasks._similarity_rows import NUMBERED, is_number, is_texts, number_of, text_of, texts_of
from hf_tuner.tasks._task import EmptyRow, Findings, Layout, RowError

COLUMNS: dict[str, tuple[str, ...]] = {
    "text": ("query", "question", "anchor", "text", "sentence1", "sentence_1", "claim", "premise", "title", "sentence_a", "input"),
    "text_pair": ("passage", "document", "context", "text_pair", "sentence2", "sentence_2", "answer", "response", "doc", "text",
                  "hypothesis", "sentence_b"),
    "documents": ("documents", "docs", "passages", "candidates", "contexts", "texts", "answers"),
    "positive": ("positive", "positives", "pos", "positive_passages"),
    "negative": ("negative", "negatives", "neg", "hard_negative", "hard_negatives", "negative_passages"),
    "label": ("label", "labels", "relevance", "score", "scores", "similarity_score", "relevances", "is_selected", "grade"),
}  # fmt: skip


def layout(features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
    """The layout of raw rows; `given` is what --columns says. Raises UsageError when there is no query or no document."""
    names = {name.lower(): name for name in features}
    found = dict(given)
    for canonical, accepted in COLUMNS.items():
        free = (names[name] for name in accepted if name in names and names[name] not in found.values())
        column = found.get(canonical) or next((c for c in free if _fits(canonical, c, first)), None)
        if column:
            found[canonical] = column
    if "text" not in found:
        raise UsageError(f"no column with queries among {', '.join(features)}: expected query, question … "
                         "(any name: --columns text=COLUMN,text_pair=COLUMN)")  # fmt: skip
    numbered = sorted(name for name in features if NUMBERED.match(name.lower()) and name not in found.values())
    negatives = [*([found["negative"]] if "negative" in found else []), *numbered]
    if "documents" in found:
        return _of("queries with lists of documents", found, ("text", "documents", "label"), _lists(found))
    if "positive" in found and negatives:
        found["negative"] = ", ".join(negatives)
        return _of(
            "queries with positives and negatives", found, ("text", "positive", "negative"), _triplets(found, negatives)
        )
    if "text_pair" in found:
        return _of("pairs of query and document", found, ("text", "text_pair", "label"), _pairs(found))
    raise UsageError(f"no column with documents among {', '.join(features)}: expected passage, document or context with a label, a "
                     "list of documents with a list of labels, or positive and negative "
                     "(any names: --columns text=COLUMN,text_pair=COLUMN,label=COLUMN)")  # fmt: skip


def audit(data: Mapping[str, Any]) -> Findings:
    """Training rows without labels are refused; so are queries without a document."""
    train = data["train"]
    if "label" not in train.column_names:
        raise UsageError(
            "the training rows do not say which documents are relevant: give a column label (1 or 0, or grades), or positive and "
            "negative. sentence_transformers.util.mine_hard_negatives finds negatives for pairs of query and answer"
        )
    found = Findings()
    for split, rows in data.items():
        if "documents" in rows.column_names and "label" in rows.column_names:
            lengths = [(len(a), len(b)) for a, b in zip(rows["documents"][:], rows["label"][:], strict=True)]
            found.errors += [
                (split, number, f"{documents} documents and {labels} labels")
                for number, (documents, labels) in enumerate(lengths)
                if documents != labels
            ]
    if "documents" in train.column_names:
        sizes = sorted(map(len, train["documents"][:]))
        found.lines["documents"] = f"{sizes[0]} to {sizes[-1]} a query, half have up to {sizes[len(sizes) // 2]}"
        found.facts["documents"] = {"least": sizes[0], "most": sizes[-1]}
    return found


def labels_of(rows: Any) -> list[list[float]]:
    """The labels of each row's documents."""
    return [label if isinstance(label, list) else [label] for label in rows["label"][:]]


def documents_of(batch: Mapping[str, Any]) -> list[list[str]]:
    """The documents of each row, from columns of rows or of a batch of them."""
    return list(batch["documents"]) if "documents" in batch else [[text] for text in batch["text_pair"]]


def _of(
    name: str, found: Mapping[str, str], used: Sequence[str], convert: Callable[[dict[str, Any]], dict[str, Any]]
) -> Layout:
    return Layout(name, {canonical: found[canonical] for canonical in used if canonical in found}, convert)


def _fits(canonical: str, column: str, first: Sequence[dict[str, Any]]) -> bool:
    values = [row[column] for row in first if row.get(column) not in (None, "")]
    if canonical == "documents":
        return all(map(is_texts, values))
    if canonical in ("positive", "negative"):
        return all(isinstance(value, str) or is_texts(value) for value in values)
    if canonical == "label":
        return bool(values) and all(
            is_number(value) or (isinstance(value, list) and all(map(is_number, value))) for value in values
        )
    return all(isinstance(value, str) for value in values)


def _pairs(found: Mapping[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {name: text_of(row[found[name]], found[name]) for name in ("text", "text_pair")}
        return {**result, **({"label": number_of(row[found["label"]], found["label"])} if "label" in found else {})}

    return convert


def _lists(found: Mapping[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        documents = _some(row[found["documents"]], found["documents"])
        result: dict[str, Any] = {"text": text_of(row[found["text"]], found["text"]), "documents": documents}
        if "label" in found:
            labels = row[found["label"]]
            if not isinstance(labels, list) or len(labels) != len(documents):
                raise RowError(
                    f'column "{found["label"]}" has to hold one number for each of the {len(documents)} documents'
                )
            result["label"] = [number_of(one, found["label"]) for one in labels]
        return result

    return convert


def _triplets(found: Mapping[str, str], negatives: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(row: dict[str, Any]) -> dict[str, Any]:
        positives = _some(row[found["positive"]], found["positive"])
        others = [text for column in negatives for text in texts_of(row[column], column)]
        if set(positives) & set(others):
            raise RowError("a document is both positive and negative")
        labels = [1.0] * len(positives) + [0.0] * len(others)
        return {"text": text_of(row[found["text"]], found["text"]), "documents": positives + others, "label": labels}

    return convert


def _some(value: Any, column: str) -> list[str]:
    """One text or more."""
    texts = texts_of(value, column)
    if not texts:
        raise EmptyRow(f'column "{column}" is empty')
    return texts
