"""Losses of sentence-transformers on embeddings that are there already, and which rows each of them is for."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hf_tuner.catalog import unknown
from hf_tuner.errors import UsageError

if TYPE_CHECKING:
    import torch

LOSSES = {
    "cosine": "CosineSimilarityLoss",
    "cosent": "CoSENTLoss",
    "angle": "AnglELoss",
    "multiple-negatives": "MultipleNegativesRankingLoss",
    "symmetric": "MultipleNegativesRankingLoss",
    "triplet": "TripletLoss",
    "contrastive": "ContrastiveLoss",
    "online-contrastive": "OnlineContrastiveLoss",
}
"""Our names of the losses in sentence_transformers.losses."""
FITTING = {
    "scored": ("cosent", "cosine", "angle"),
    "labelled": ("contrastive", "online-contrastive", "cosine", "cosent", "angle"),
    "pairs": ("multiple-negatives", "symmetric"),
    "triplets": ("multiple-negatives", "symmetric", "triplet"),
}
"""Kind of rows → the losses that fit; the first is the default."""
WORDS = {
    "scored": "scored pairs",
    "labelled": "pairs of 0 and 1",
    "pairs": "pairs that belong together",
    "triplets": "triplets",
}
WITHIN_BATCH = ("multiple-negatives", "symmetric", "cosent", "angle", "online-contrastive")
"""Losses that compare the rows of a micro-batch with each other: how an update is cut matters to them."""


def chosen(asked: str, kind: str) -> str:
    """The loss for a kind of rows: the one asked for ("auto": the default). Raises UsageError when it does not fit."""
    if asked == "auto":
        return FITTING[kind][0]
    if asked not in LOSSES:
        raise UsageError("--similarity-loss: " + unknown("loss", asked, list(LOSSES)))
    if asked not in FITTING[kind]:
        raise UsageError(f"--similarity-loss {asked}: these rows are {WORDS[kind]}; use {' or '.join(FITTING[kind])}")
    return asked


def dimensions(text: str) -> tuple[int, ...]:
    """The sizes of --matryoshka-dims, largest first. Raises UsageError for what is no list of whole numbers above 0."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--matryoshka-dims {text}: expected whole numbers such as 384,128,64")
    return tuple(sorted({int(part) for part in parts}, reverse=True))


def total(
    loss: str,
    columns: "Sequence[torch.Tensor]",
    labels: "torch.Tensor",
    never: "torch.Tensor | None",
    dims: Sequence[int],
) -> "torch.Tensor":
    """A loss of sentence-transformers times the number of rows.

    `columns` are embeddings [rows, size] of each text of the rows, `labels` [rows] in 0 … 1. `never` [rows, rows of all
    columns but the first, one after the other] marks texts that are no negative for a row. `dims` are sizes at which
    the beginning of the embeddings has to do as well (Matryoshka, Kusupati et al. 2022, arXiv 2205.13147).
    """
    from sentence_transformers.sentence_transformer import losses

    model = _stand_in(columns[0].shape[1])
    criterion = _criterion(loss, model, never)
    if dims:
        criterion = losses.MatryoshkaLoss(model, criterion, list(dims))
    value = criterion([{"sentence_embedding": column} for column in columns], labels)
    return value if loss == "online-contrastive" else value * len(labels)  # that one is a sum already


def _criterion(loss: str, model: Any, never: "torch.Tensor | None") -> Any:
    from sentence_transformers.sentence_transformer import losses

    if loss in ("multiple-negatives", "symmetric"):
        both: dict[str, Any] = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        return losses.MultipleNegativesRankingLoss(
            model, similarity_fct=_without(never), **(both if loss == "symmetric" else {})
        )
    if loss == "triplet":
        # The library's default is for vectors of any length, with a margin that those of length 1 can never reach.
        cosine = losses.TripletDistanceMetric.COSINE
        return losses.TripletLoss(model, distance_metric=cosine, triplet_margin=0.5)
    return getattr(losses, LOSSES[loss])(model)


def _without(never: "torch.Tensor | None") -> "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]":
    """Cosine similarity [left, right] in which what is no negative is infinitely far."""
    from sentence_transformers.util import cos_sim

    def similarity(left: "torch.Tensor", right: "torch.Tensor") -> "torch.Tensor":
        scores = cos_sim(left, right)
        return scores if never is None else scores.masked_fill(never[:, : len(right)], -float("inf"))

    return similarity


def _stand_in(size: int) -> Any:
    """What the losses take for a model: it gives back the embeddings that it is handed."""
    from torch import nn

    class Given(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return dict(features)

        def get_embedding_dimension(self) -> int:
            return size

    return Given()
