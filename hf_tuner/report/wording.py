"""How names and numbers are written in the closing table and on the page."""

import math
from collections.abc import Mapping
from typing import Any

NAMES = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "subset_accuracy": "subset accuracy",
    "average_precision": "average precision",
    "mse": "MSE",
    "mae": "MAE",
    "f1": "F1",
    "bits_per_byte": "bits per byte",
    "f1_answerable": "F1 (answerable)",
    "f1_impossible": "F1 (impossible)",
    "spearman_cosine": "Spearman (cosine)",
    "pearson_cosine": "Pearson (cosine)",
    "map": "mAP",
    "mrr": "MRR",
    "mrr_at_10": "MRR@10",
    "ndcg_at_10": "nDCG@10",
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
    "cider": "CIDEr-D",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "ap": "AP",
    "ap_50": "AP@50",
    "map_50": "mAP@50",
    "map_75": "mAP@75",
    "map_small": "mAP small",
    "map_medium": "mAP medium",
    "map_large": "mAP large",
    "mar_100": "mAR@100",
    "pq": "PQ",
    "pq_things": "PQ of things",
    "pq_stuff": "PQ of stuff",
    "sq": "SQ",
    "rq": "RQ",
    "top5_accuracy": "top-5 accuracy",
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "image_to_text_recall_at_1": "image→text recall@1",
    "image_to_text_recall_at_5": "image→text recall@5",
    "image_to_text_recall_at_10": "image→text recall@10",
    "image_to_text_mrr": "image→text MRR",
    "text_to_image_recall_at_1": "text→image recall@1",
    "text_to_image_recall_at_5": "text→image recall@5",
    "text_to_image_recall_at_10": "text→image recall@10",
    "text_to_image_mrr": "text→image MRR",
    "vqa_accuracy": "VQA accuracy",
    "token_f1": "F1 of words",
}
ORDER = (
    "vqa_accuracy", "f1", "precision", "recall", "exact_match", "token_f1", "f1_answerable", "f1_impossible",
    "spearman_cosine", "pearson_cosine", "map", "map_50", "map_75",
    "pq", "pq_things", "pq_stuff", "sq", "rq",
    "mrr_at_10", "ndcg_at_10", "recall_at_1", "recall_at_10", "triplet_accuracy",
    "cider", "bleu", "rouge_l", "margin", "perplexity", "bits_per_byte",
    "mean_iou", "mean_dice", "mean_accuracy", "pixel_accuracy",
    "mean_recall",
    "image_to_text_recall_at_1", "image_to_text_recall_at_5", "image_to_text_recall_at_10", "image_to_text_mrr",
    "text_to_image_recall_at_1", "text_to_image_recall_at_5", "text_to_image_recall_at_10", "text_to_image_mrr",
    "accuracy", "top5_accuracy", "micro_f1", "macro_f1", "weighted_f1", "subset_accuracy", "mcc", "pearson", "spearman",
    "average_precision", "roc_auc", "mse", "mae", "log_loss", "calibration_error",
)  # fmt: skip
"""Metrics as people read them: the headline first."""
LOWER_IS_BETTER = ("mse", "mae", "log_loss", "calibration_error", "hamming", "loss", "perplexity", "bits_per_byte")
UNBOUNDED = ("margin", "chosen_logp", "rejected_logp", "bleu", "chrf", "rouge_1", "rouge_2", "rouge_l")
"""Scores that have no place on a line from 0 to 1, and not because they are better when lower."""
SPLITS = ("test", "validation", "train")
BASELINES = ("majority", "chance", "copy", "lead", "typical caption", "before", "probe")
"""The one a run is set beside comes last."""
NONE = "–"

Score = Mapping[str, Any]


def name(metric: str) -> str:
    """A metric's name in words."""
    return NAMES.get(metric, metric.replace("_", " "))


def ordered(known: tuple[str, ...], found: Any) -> list[str]:
    """The names found: known ones in their order, the rest after them by alphabet."""
    return sorted(found, key=lambda n: (known.index(n) if n in known else len(known), n))


def number(value: Any) -> str:
    """A score with three decimals, one digit for tiny ones, none for large ones: 0.934, 0.0003, 1,234."""
    if value is None or not math.isfinite(value):
        return NONE
    if value and abs(value) < 0.0005:
        return f"{value:.1g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def interval(score: Score | None) -> str:
    """Bounds of a score, such as [0.925, 0.942]; empty when there are none."""
    if not score or score.get("low") is None or score.get("high") is None:
        return ""
    return f"[{number(score['low'])}, {number(score['high'])}]"


def with_interval(score: Score | None) -> str:
    """A score with its bounds: 0.934 [0.925, 0.942]."""
    return f"{number(value(score))} {interval(score)}".strip()


def value(score: Score | None) -> float | None:
    """The value of a score, None when there is none."""
    return score.get("value") if score else None


def size(count: Any) -> str:
    """Bytes as people say them: 512 B, 1.4 MB. Anything that is not a whole number stays as it is."""
    if isinstance(count, bool) or not isinstance(count, int):
        return str(count)
    amount, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    if units[0] == "B":
        return f"{count} B"
    return f"{amount:.3g} {units[0]}" if amount < 100 else f"{amount:.0f} {units[0]}"


def comparison(metric: str, score: Score | None, baseline: Score | None, who: str) -> str:
    """One sentence: how far a score is from a baseline, and whether its interval leaves the baseline out."""
    mine, theirs = value(score), value(baseline)
    if mine is None or theirs is None or not score:
        return ""
    gain = theirs - mine if metric in LOWER_IS_BETTER else mine - theirs
    where = "better" if gain > 0 else "worse"
    who = "model before training" if who == "before" else who
    if abs(gain) < 5e-4:
        return f"{name(metric)} is that of the {who}"
    inside = score.get("low") is not None and score["low"] <= theirs <= score["high"]
    clear = ", which lies within the 95 % interval" if inside else ", beyond the 95 % interval"
    return f"{name(metric)} is {number(abs(gain))} {where} than the {who}{clear}"


def shorten(text: Any, length: int) -> str:
    """One line of at most `length` characters, cut with an ellipsis."""
    line = " ".join(str(text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
