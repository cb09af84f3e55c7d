"""Losses of a reranker: one pair at a time, or a query's documents against each other."""

from typing import TYPE_CHECKING, Any

from hf_tuner.catalog import unknown
from hf_tuner.errors import UsageError

if TYPE_CHECKING:
    import torch

LISTWISE = {
    "lambda": "LambdaLoss",
    "listnet": "ListNetLoss",
    "listmle": "ListMLELoss",
    "plistmle": "PListMLELoss",
    "ranknet": "RankNetLoss",
}
"""Our names of the losses in sentence_transformers.cross_encoder.losses that order the documents of a query."""
LOSSES = ("bce", *LISTWISE)


def chosen(asked: str, lists: bool) -> str:
    """The loss for rows that are lists of documents, or pairs. Raises UsageError where it does not fit."""
    if asked == "auto":
        return "bce"
    if asked not in LOSSES:
        raise UsageError("--rerank-loss: " + unknown("loss", asked, list(LOSSES)))
    if asked in LISTWISE and not lists:
        raise UsageError(f"--rerank-loss {asked}: orders the documents of a query, and these rows are pairs; give each query's documents "
                         "in one row (documents and labels, or positive and negatives), or use bce")  # fmt: skip
    return asked


def pairs(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Sum over pairs of the binary cross-entropy of logits [pairs] and labels [pairs] in 0 … 1."""
    import torch

    return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def one_list(loss: str, logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """A listwise loss of sentence-transformers for the documents of one query: logits and labels [documents]."""
    from sentence_transformers.cross_encoder import losses

    documents = list(range(len(logits)))
    criterion = getattr(losses, LISTWISE[loss])(_stand_in(logits), mini_batch_size=-1)
    return criterion([["query"], [documents]], [labels])


def _stand_in(logits: "torch.Tensor") -> Any:
    """What the losses take for a model: documents are numbers, and their scores are there already."""
    import torch

    class Given(torch.nn.Module):
        num_labels = 1
        device = logits.device

        def preprocess(self, texts: list[tuple[str, int]], **_: Any) -> dict[str, Any]:
            return {"number": torch.tensor([document for _, document in texts], device=logits.device)}

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"scores": logits[features["number"]]}

    return Given()
