"""How well pictures find their captions and captions their pictures, among all of a split: recall@k and reciprocal rank.

The protocol of Flickr8k, Flickr30k and COCO (Hodosh et al. 2013; Karpathy and Fei-Fei 2015, arXiv 1412.2306): a picture
has found its captions when one of them is among the first k, and every caption looks for its picture. Rows with the same
picture are one picture, equal captions are one text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np

from hf_tuner.metrics._similarity import AT_ONCE, unit
from hf_tuner.metrics._weighted import Weighted, mean

DEPTHS = (1, 5, 10)
WAYS = ("image_to_text", "text_to_image")


@dataclass(frozen=True)
class Search:
    """Pictures and captions of a split, and what of the one looks for what of the other."""

    pictures: np.ndarray
    """Embeddings of length 1 [pictures, size]; no numbers (size 0) make everything equally near."""
    captions: np.ndarray
    """The same of different captions [captions, size]."""
    texts: Sequence[str]
    """The captions."""
    rows: np.ndarray
    """The first row [pictures] that each picture stands in."""
    pairs: np.ndarray
    """(picture, caption) [pairs, 2] that belong together, each once."""

    @cached_property
    def of_picture(self) -> list[np.ndarray]:
        """The captions of each picture."""
        return _grouped(self.pairs[:, 0], self.pairs[:, 1], len(self.pictures))

    @cached_property
    def of_caption(self) -> list[np.ndarray]:
        """The pictures of each caption."""
        return _grouped(self.pairs[:, 1], self.pairs[:, 0], len(self.captions))


def search_of(kept: Sequence[np.ndarray], captions: Sequence[Sequence[str]], pictures: Sequence[str]) -> Search:
    """The search among rows: `kept` holds a row's embeddings (its picture's first, then one a caption, [1 + captions,
    size]), `pictures` what tells one picture from another."""
    known: dict[str, int] = {}
    texts: dict[str, int] = {}
    pairs: dict[tuple[int, int], None] = {}
    shown, read, first = [], [], []
    for row, (vectors, own, picture) in enumerate(zip(kept, captions, pictures, strict=True)):
        if picture not in known:
            known[picture] = len(known)
            shown.append(vectors[0])
            first.append(row)
        for text, vector in zip(own, vectors[1:], strict=True):
            if text not in texts:
                texts[text] = len(texts)
                read.append(vector)
            pairs[known[picture], texts[text]] = None
    return Search(unit(np.stack(shown)), unit(np.stack(read)), list(texts), np.array(first), np.array(list(pairs)))


def measures(search: Search) -> tuple[dict[str, Weighted], int, dict[str, str]]:
    """Scores, how many pictures the bootstrap draws (each with its captions), and notes.

    `mean_recall`, the headline, is the mean of the recalls at 1, 5 and 10 of both directions.
    """
    each: dict[str, Weighted] = {}
    owners = search.pairs[:, 0]
    of_pair = [search.of_caption[caption] for caption in search.pairs[:, 1]]
    found = {
        "image_to_text": _found(search.pictures, search.captions, search.of_picture),
        "text_to_image": _found(search.captions[search.pairs[:, 1]], search.pictures, of_pair),
    }
    for way, values in found.items():
        for name, one in values.items():
            each[f"{way}_{name}"] = mean(one) if way == WAYS[0] else _mean_of(one, owners, len(search.pictures))
    recalls = [each[f"{way}_recall_at_{k}"] for way in WAYS for k in DEPTHS]
    scores: dict[str, Weighted] = {"mean_recall": lambda weights: np.mean([one(weights) for one in recalls], axis=0)}
    sizes = dict(zip(WAYS, (len(search.captions), len(search.pictures)), strict=True))
    words = dict(zip(WAYS, ("captions", "pictures"), strict=True))
    notes = {
        f"{way}_recall_at_{k}": f"there are {sizes[way]} {words[way]} to find it among"
        for way in WAYS
        for k in DEPTHS
        if sizes[way] <= k
    }
    return scores | each, len(search.pictures), notes


def ranks(queries: np.ndarray, corpus: np.ndarray, relevant: Sequence[np.ndarray]) -> np.ndarray:
    """At which place [queries], from 1, the first relevant one stands; of equals the relevant one stands last."""
    return np.concatenate([
        1 + (similar > best[:, None]).sum(axis=1) + (similar == best[:, None]).sum(axis=1) - wanted
        for similar, best, wanted in _similar(queries, corpus, relevant)
    ])  # fmt: skip


def nearest(queries: np.ndarray, corpus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which one [queries] is nearest, and its cosine."""
    none = [np.zeros(1, int)] * len(queries)
    parts = [(similar.argmax(axis=1), similar.max(axis=1)) for similar, _, _ in _similar(queries, corpus, none)]
    return np.concatenate([place for place, _ in parts]), np.concatenate([value for _, value in parts])


def _found(queries: np.ndarray, corpus: np.ndarray, relevant: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """recall_at_k and mrr of each query [queries]; of equally near ones any may stand first, so it is what is expected."""
    names = [f"recall_at_{k}" for k in DEPTHS] + ["mrr"]
    values: list[list[float]] = []
    for similar, best, wanted in _similar(queries, corpus, relevant):
        above = (similar > best[:, None]).sum(axis=1)
        alike = (similar == best[:, None]).sum(axis=1)
        values += [_expected(int(a), int(n), int(r)) for a, n, r in zip(above, alike, wanted, strict=True)]
    return dict(zip(names, np.array(values).T, strict=True))


def _expected(above: int, alike: int, wanted: int) -> list[float]:
    """Recalls and reciprocal rank where `above` are nearer and `wanted` of `alike` equally near ones are right."""
    if alike == wanted:
        return [float(above < k) for k in DEPTHS] + [1 / (above + 1)]
    ways = comb(alike, wanted)
    recalls = [1 - comb(max(0, alike - max(0, k - above)), wanted) / ways for k in DEPTHS]
    places = range(1, alike - wanted + 2)
    return [*recalls, sum(comb(alike - place, wanted - 1) / ways / (above + place) for place in places)]


def _similar(
    queries: np.ndarray, corpus: np.ndarray, relevant: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Some queries at a time: similarities [some, corpus], that of the best relevant one and how many are as near."""
    step = max(1, AT_ONCE // max(1, len(corpus)))
    for start in range(0, len(queries), step):
        similar = queries[start : start + step] @ corpus.T
        right = relevant[start : start + step]
        best = np.array([row[places].max() for row, places in zip(similar, right, strict=True)])
        wanted = np.array(
            [(row[places] == top).sum() for row, places, top in zip(similar, right, best, strict=True)], int
        )
        yield similar, best, wanted


def _mean_of(values: np.ndarray, owners: np.ndarray, units: int) -> Callable[[np.ndarray], np.ndarray]:
    """The mean over queries [queries] that are drawn with their owner [queries] of `units`."""
    sums, counts = (np.bincount(owners, weights=one, minlength=units) for one in (values, np.ones(len(values))))
    return lambda weights: (weights @ sums) / np.maximum(weights @ counts, 1e-12)


def _grouped(keys: np.ndarray, values: np.ndarray, count: int) -> list[np.ndarray]:
    """The values of each key 0 … count - 1."""
    order = np.argsort(keys, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(keys, minlength=count))[:-1])
