"""question-answering: the piece of a text that answers a question, or that there is none (extractive, SQuAD)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from hf_tuner.config import Run, option
from hf_tuner.errors import UsageError
from hf_tuner.tasks._answer_audit import answer_findings
from hf_tuner.tasks._answer_layouts import answer_layout
from hf_tuner.tasks._answers import Candidate, candidates, code, label, probabilities, shortened
from hf_tuner.tasks._fields import settings_of
from hf_tuner.tasks._task import Findings, Layout, Measures, Task, Usage
from hf_tuner.tasks._windows import groups, padded

if TYPE_CHECKING:
    import numpy as np
    import torch

SHOWN = 5
"""Answers that `predict` gives for each question."""
WORST = 20
SPECIAL = 4
"""Special tokens of a pair at most."""
LONGEST_QUESTION = 64
SURE = 1e4
"""A score no model gives: that of the baseline that never answers."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long contexts are read, and what an answer may be."""

    doc_stride: int = option(128, "Tokens that two windows of a long context share (at most half of a window).")
    max_answer_tokens: int = option(30, "Longest answer, in tokens.")
    n_best: int = option(20, "Candidates that are looked at in each window.")

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot work."""
        if self.doc_stride < 0:
            raise ValueError(f"doc_stride is {self.doc_stride}; expected 0 or more, such as 128")
        for name in ("max_answer_tokens", "n_best"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """What a reader of texts needs: windows of a context, scores of first and last tokens, and the spans they make."""

    name: ClassVar[str] = "question-answering"
    signs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("question", "context"),
        ("question", "context", "answers"),
        ("paragraphs",),
    )
    auto_model: ClassVar[str] = "AutoModelForQuestionAnswering"
    pipeline: ClassVar[str] = "question-answering"
    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "question": ("question", "query", "questions"),
        "context": ("context", "passage", "paragraph", "document", "text", "article"),
        "answers": ("answers", "answer", "answer_text"),
        "answer_start": ("answer_start", "answer_starts", "start"),
        "id": ("id", "qid", "question_id"),
    }
    optional: ClassVar[tuple[str, ...]] = ("answers", "answer_start", "id")
    targets: ClassVar[tuple[str, ...]] = ("answers", "answer_start", "moved")
    texts: ClassVar[tuple[str, ...]] = ("question", "context")
    measured: ClassVar[tuple[str, ...]] = ("answers",)
    splits: ClassVar[bool] = True

    doc_stride: int = 128
    max_answer_tokens: int = 30
    n_best: int = 20
    impossible: bool = False
    """Whether it may say that there is no answer."""
    threshold: float = 0.0
    """How much more no answer must score than the best one to be given."""
    chosen: bool = False
    """Whether the threshold was chosen on validation rows."""

    # --- from data

    @classmethod
    def from_data(cls, data: Mapping[str, Any], run: Run) -> "QuestionAnswering":
        """With questions without an answer when the training rows have some."""
        some = any(not answers["text"] for answers in data["train"]["answers"][:])
        return cls(**{**settings_of(cls, run), "impossible": some, "threshold": 0.0, "chosen": False})

    @classmethod
    def layout(cls, features: Mapping[str, Any], first: Sequence[dict[str, Any]], given: Mapping[str, str]) -> Layout:
        """SQuAD in its own file or flat, or one answer a row."""
        return answer_layout(features, first, given, cls.columns)

    @classmethod
    def audit(cls, data: Mapping[str, Any], run: Run) -> Findings:
        """How many questions have no answer, answers that stood elsewhere than said, contexts of several questions."""
        return answer_findings(data)

    @property
    def note(self) -> str:
        """Whether it may answer nothing, and from where on."""
        if not self.impossible:
            return "every question has an answer in its context"
        how = (
            "chosen on the validation rows for the highest F1"
            if self.chosen
            else "not chosen: there were no validation rows"
        )
        return f"some questions have no answer; nothing is answered above a threshold of {self.threshold:.2f}, {how}"

    def config_options(self) -> dict[str, Any]:
        """Two scores for each token: of being the first and the last."""
        return {"num_labels": 2}

    def samples(self) -> list[dict[str, Any]]:
        """Rows to compare two models on where the run's own data is not at hand."""
        text = "Ann Lee wrote the letter in Berlin on 5 May 1897, and sent it to her brother in Oslo. "
        asked = ("Who wrote the letter?", "Where did she write?", "When?", "What is the price of tea?")
        return [{"question": one, "context": context} for one in asked for context in (text, text * 20)]

    # --- rows to tensors

    def encode(self, tokenizer: Any, max_length: int) -> Callable[[dict[str, list]], dict[str, list]]:
        """A batched function from rows to windows: token ids, `first` (where the context begins), `starts` and `ends` (its
        tokens in characters), `null` (the token that stands for no answer), `window` (its number in the row), and where
        there are answers `labels` (first and last token, both `null` where the window does not hold the answer)."""
        if not tokenizer.is_fast:
            raise UsageError(
                "question-answering needs to know where tokens stand in the text: a fast tokenizer (tokenizer.json)"
            )
        longest = min(LONGEST_QUESTION, (max_length - SPECIAL) // 2)
        if longest < 1:
            raise UsageError(f"--max-length {max_length} leaves no room for a question and a context")
        stride = min(self.doc_stride, (max_length - longest - SPECIAL) // 2)
        settings = {"truncation": "only_second", "max_length": max_length, "stride": max(0, stride),
                    "return_overflowing_tokens": True, "return_offsets_mapping": True}  # fmt: skip
        null = tokenizer.cls_token_id

        def rows(batch: dict[str, list]) -> dict[str, list]:
            asked = shortened(tokenizer, batch["question"], longest)
            found = tokenizer(asked, batch["context"], **settings)
            made: dict[str, list] = {name: found[name] for name in ("input_ids", "token_type_ids") if name in found}
            made |= {name: [] for name in ("length", "first", "starts", "ends", "null", "window")}
            answers = batch.get("answers")
            if answers is not None:
                made["labels"] = []
            before = -1
            for number, row in enumerate(found["overflow_to_sample_mapping"]):
                ids = found["input_ids"][number]
                inside = [i for i, part in enumerate(found.sequence_ids(number)) if part == 1]
                places = [found["offset_mapping"][number][i] for i in inside]
                made["length"].append(len(ids))
                made["first"].append(inside[0] if inside else 0)
                made["starts"].append([start for start, _ in places])
                made["ends"].append([end for _, end in places])
                made["null"].append(ids.index(null) if null in ids else 0)
                made["window"].append(0 if row != before else made["window"][-1] + 1)
                before = row
                if answers is not None:
                    made["labels"].append(label(answers[row], places, made["first"][-1], made["null"][-1]))
            return made

        return rows

    def collate(self, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
        """A function from windows to one batch: ids and masks [windows, tokens], `inside` (1 for the context and for no
        answer), `null` [windows] and labels [windows, 2]."""
        import torch

        fill = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "inside": 0,
                "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0)}  # fmt: skip

        def batch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            full = []
            for row in rows:
                inside = [0] * len(row["input_ids"])
                inside[row["first"] : row["first"] + len(row["starts"])] = [1] * len(row["starts"])
                inside[row["null"]] = 1
                full.append({**row, "attention_mask": [1] * len(inside), "inside": inside})
            result = padded(full, fill) | {"null": torch.tensor([row["null"] for row in rows])}
            if "labels" in rows[0]:
                result["labels"] = torch.tensor([[int(place) for place in row["labels"]] for row in rows])
            return result

        return batch

    def masks(self, ready: Any) -> list[tuple[str, bool, str]]:
        """Proof that every training label stands in the context, or says that there is no answer, and that some answer."""
        plain = ready.with_format(None)
        held = inside = 0
        columns = (plain[name][:] for name in ("labels", "first", "starts", "null"))
        for (start, end), first, starts, null in zip(*columns, strict=True):
            nothing = start == end == null
            held += not nothing
            inside += nothing or first <= start <= end < first + len(starts)
        told = f"{held:,} of {len(ready):,} windows hold the answer"
        return [("answers are learned inside their contexts", inside == len(ready) and held > 0, told)]

    def example(self, tokenizer: Any, ready: Any) -> str:
        """The shortest of the first windows that hold an answer, which stands between ⟦ and ⟧."""
        rows = [row for row in ready.select(range(min(50, len(ready)))) if row["labels"][0] != row["null"]]
        row = min(rows, key=lambda one: one["length"]) if rows else ready[0]
        start, end = row["labels"]
        ids = row["input_ids"]
        parts = (tokenizer.decode(part) for part in (ids[:start], ids[start : end + 1], ids[end + 1 :]))
        return "{} ⟦{}⟧ {}".format(*(part.strip() for part in parts)) if rows else tokenizer.decode(ids)

    # --- training and measuring

    def loss(self, model: Any, batch: dict[str, Any], plug: Callable[..., Any] | None = None) -> "torch.Tensor":
        """Sum of the log losses of first and last token, each among the tokens of the context and no answer."""
        from torch.nn import functional

        labels, inside = batch.pop("labels"), batch.pop("inside").bool()
        parts = zip(self._scores(model, batch), labels.unbind(dim=1), strict=True)
        return sum(
            (functional.cross_entropy(scores.masked_fill(~inside, float("-inf")), right, reduction="sum")
             for scores, right in parts),
            start=0.0,
        )  # type: ignore[return-value]  # fmt: skip

    def outputs(self, model: Any, batch: dict[str, Any]) -> "list[np.ndarray]":
        """Scores [1 + tokens of the context, 2] of each window for first and last token; the first row is no answer."""
        import torch

        batch.pop("labels", None)
        inside, null = batch.pop("inside").bool(), batch["null"]
        scores = torch.stack(list(self._scores(model, batch)), dim=-1).cpu().numpy()
        places, nulls = inside.cpu().numpy(), null.cpu().numpy()
        result = []
        for one, place, nothing in zip(scores, places, nulls, strict=True):
            place[nothing] = False
            result.append(one[[nothing, *place.nonzero()[0]]])
        return result

    def measure(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> Measures:
        """F1 and exact match; with questions without answer, of both kinds apart as well."""
        import numpy as np

        from hf_tuner.metrics._squad import exact_match, f1, mean_over
        from hf_tuner.metrics._weighted import mean

        expected = [one["text"] for one in rows["answers"][:]]
        said = [self._answer(*found)[0] for found in self._found(kept, ready, rows)]
        values = {name: np.array([score(a, b) for a, b in zip(said, expected, strict=True)])
                  for name, score in (("f1", f1), ("exact_match", exact_match))}  # fmt: skip
        scores = {name: mean(each) for name, each in values.items()}
        none = np.array([not texts for texts in expected], np.float64)
        if 0 < none.sum() < len(none):
            scores |= {
                "f1_answerable": mean_over(values["f1"], 1 - none),
                "f1_impossible": mean_over(values["f1"], none),
            }
        return Measures(scores, len(expected))

    def quick(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> dict[str, float]:
        """The mean log loss of a token's place, and the scores."""
        import numpy as np

        plain = ready.with_format(None)
        losses = []
        for scores, labels, first, null in zip(kept, *(plain[n][:] for n in ("labels", "first", "null")), strict=True):
            for side, place in enumerate(labels):
                values = scores[:, side].astype(np.float64)
                right = values[0 if place == null else place - first + 1]
                losses.append(values.max() + np.log(np.exp(values - values.max()).sum()) - right)
        return {"loss": float(np.mean(losses)), **super().quick(kept, ready, rows)}

    def settled(self, kept: "Mapping[str, list[np.ndarray]]", ready: Mapping[str, Any],
                data: Mapping[str, Any]) -> "QuestionAnswering":  # fmt: skip
        """With the threshold that gives the highest F1 on the validation rows, when some of them have no answer."""
        import numpy as np

        from hf_tuner.metrics._squad import best_threshold, f1

        if not self.impossible or "validation" not in kept:
            return self
        expected = [one["text"] for one in data["validation"]["answers"][:]]
        found = self._found(kept["validation"], ready["validation"], data["validation"])
        known = [(nothing, best[0]) for nothing, best in found if best]
        if len(known) != len(expected) or all(expected) or not np.isfinite([nothing for nothing, _ in known]).all():
            return self
        answered = np.array([f1(one.text, right) for (_, one), right in zip(known, expected, strict=True)])
        impossible = np.array([not right for right in expected])
        threshold, _ = best_threshold(np.array([nothing - one.score for nothing, one in known]), answered, impossible)
        return replace(self, threshold=threshold, chosen=True)

    def baselines(self, train: Any, ready: Any, rows: Any) -> "dict[str, list[np.ndarray]]":
        """Where that is allowed, never answering."""
        import numpy as np

        if not self.impossible:
            return {}
        kept = [np.zeros((1 + len(starts), 2), np.float32) for starts in ready.with_format(None)["starts"][:]]
        for one in kept:
            one[0] = SURE
        return {"majority": kept}

    def answers(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """{"prediction", "score", "start", "end", "n_best"} for each row; "" at no place when there is no answer.

        `score` is the probability among the candidates, `n_best` has the best of them as {"text", "start", "end", "score"}.
        """
        result = []
        for nothing, found in self._found(kept, ready, rows):
            given, place = self._answer(nothing, found)
            lines = [(one.score, one.text, one.start, one.end) for one in found]
            if self.impossible or not lines:
                lines.append((nothing - self.threshold if found else 0.0, "", None, None))  # type: ignore[arg-type]
            lines.sort(key=lambda one: -one[0])
            sure = probabilities([line[0] for line in lines])
            best = [{"text": text, "start": start, "end": end, "score": score}
                    for (_, text, start, end), score in zip(lines, sure, strict=True)]  # fmt: skip
            mine = next(one for one in best if one["text"] == given and one["start"] == place)
            result.append({"prediction": given, "score": mine["score"], "start": mine["start"], "end": mine["end"],
                           "n_best": best[:SHOWN]})  # fmt: skip
        return result

    def worst(self, kept: "list[np.ndarray]", ready: Any, rows: Any, processor: Any) -> list[dict[str, Any]]:
        """Questions answered without any right word, by how sure the model was."""
        from hf_tuner.metrics._squad import f1

        given = self.answers(kept, ready, rows, processor)
        wrong = [
            {"text": question, "expected": " | ".join(dict.fromkeys(right["text"])) or "(no answer)",
             "predicted": one["prediction"] or "(no answer)", "score": one["score"]}
            for one, question, right in zip(given, rows["question"][:], rows["answers"][:], strict=True)
            if f1(one["prediction"], right["text"]) == 0
        ]  # fmt: skip
        return sorted(wrong, key=lambda one: -one["score"])[:WORST]

    # --- words for the card

    @property
    def gives(self) -> str:
        """What it gives for what."""
        return "the piece of a text that answers a question" + (", or that there is none" if self.impossible else "")

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do."""
        always = () if self.impossible else ("It answers every question, also one that the text does not answer.",)
        return (
            f"It copies one piece of at most {self.max_answer_tokens} tokens; it does not write, count or conclude.",
            *always,
        )

    def usage(self, max_length: int) -> Usage:
        """Code for one question and a context of one window."""
        return Usage(
            reads="the columns `question` and `context`",
            example='[{"question": "Who wrote the letter?", "context": "Ann Lee wrote the letter in May."}]',
            answer="This reads one window; hf-tuner reads longer contexts in several and takes the best answer of all.",
            lines=code(max_length, self.max_answer_tokens, self.threshold if self.impossible else None),
        )

    # --- helpers

    def _scores(self, model: Any, batch: dict[str, Any]) -> "tuple[torch.Tensor, torch.Tensor]":
        """Scores [windows, tokens] of being the first and the last token of the answer."""
        batch.pop("null")
        tokens = batch["input_ids"].shape[1]
        output = model(**batch)
        # Virtual tokens of prompt methods stand before the text.
        return output["start_logits"][:, -tokens:].float(), output["end_logits"][:, -tokens:].float()

    def _found(self, kept: "list[np.ndarray]", ready: Any, rows: Any) -> list[tuple[float, list[Candidate]]]:
        """For each of the data's rows the score of no answer, and the best answers."""
        plain = ready.with_format(None)
        columns = plain["starts"][:], plain["ends"][:]
        result = []
        for places, context in zip(groups(plain["window"][:]), rows["context"][:], strict=True):
            windows = [(kept[i], {"starts": columns[0][i], "ends": columns[1][i]}) for i in places]
            result.append(candidates(windows, context, self.max_answer_tokens, self.n_best))
        return result

    def _answer(self, nothing: float, found: Sequence[Candidate]) -> tuple[str, int | None]:
        """The text that is answered and where it begins; "" at None where there is no answer."""
        if not found or (self.impossible and nothing - found[0].score > self.threshold):
            return "", None
        return found[0].text, found[0].start
