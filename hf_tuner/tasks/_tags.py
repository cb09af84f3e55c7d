"""Words of a text, tags of words, and how one becomes the other.

Entities are marked word by word: B- begins one, I- goes on, O is outside (BIO, Ramshaw & Marcus 1995, cmp-lg/9505040).
Older data begin with I- where nothing has to be told apart (IOB1), others mark last and single words (IOBES, BILOU).
All are read as what they mean and turned into BIO: the entities are those that seqeval finds by default.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from hf_tuner.tasks._labels import natural

OUTSIDE = "O"
MARK = re.compile(r"([BIESULM])-(.+)", re.DOTALL)
BEGINS, ENDS = "BSU", "ESUL"
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Scripts that put no spaces between words, or grow words together (Hangul): each character counts as a word."""

Span = tuple[str, int, int]
"""Name, first and past the last (of words, or of characters)."""


def words_of(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end: runs of letters and digits, every other character alone."""
    if text.isascii():
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    found: list[tuple[int, int]] = []
    joins = False
    for at, character in enumerate(text):
        if character.isspace():
            joins = False
            continue
        letter = character.isalnum() or character == "_"
        alone = UNSPACED.match(character) is not None
        mark = unicodedata.category(character).startswith("M")
        if (joins and letter and not alone) or (mark and found and found[-1][1] == at):
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
            joins = letter and not alone
    return found


def is_marked(tags: Iterable[str]) -> bool:
    """Whether tags mark entities: all but O say B-, I- or the like. Others (parts of speech) are names by themselves."""
    rest = set(tags) - {OUTSIDE}
    return bool(rest) and all(MARK.fullmatch(tag) for tag in rest)


def bio(tags: Sequence[str]) -> list[str]:
    """The tags of one row in BIO, from any kind of marking; each entity begins with B-."""
    result, before = [], None
    for tag in tags:
        found = MARK.fullmatch(tag)
        if found is None:
            result.append(OUTSIDE)
            before = None
            continue
        kind, name = found.groups()
        result.append(f"{'B' if kind in BEGINS or name != before else 'I'}-{name}")
        before = None if kind in ENDS else name
    return result


def marking(rows: Iterable[Sequence[str]]) -> tuple[str, int]:
    """What kind of marking rows of tags use (BIO, IOB1 or IOBES), and how many tags are wrong in it.

    Wrong is an entity that goes on without having begun; in IOB1, where that is the rule, nothing is.
    """
    kinds: set[str] = set()
    headless, needless = 0, 0
    for tags in rows:
        before = OUTSIDE
        for tag, plain in zip(tags, bio(tags), strict=True):
            kinds.add(tag[0])
            if plain[0] == "B" and tag[0] in "IMEL":
                headless += 1
            if tag[0] == "B" and before[1:] != tag[1:]:
                needless += 1  # IOB1 has no B- where no entity of the same kind stands before
            before = tag
    if kinds & set("ESULM"):
        return "IOBES", headless
    return ("IOB1", 0) if headless and not needless else ("BIO", headless)


def ordered(tags: Iterable[str], marked: bool) -> tuple[str, ...]:
    """Tags in the order of a model's outputs: O, then B- and I- of each name in natural order; or natural order."""
    if not marked:
        return tuple(sorted(tags, key=natural))
    return tuple(sorted(tags, key=lambda tag: (tag != OUTSIDE, natural(tag[2:]), tag[:1])))


def spans_to_tags(text: str, spans: Iterable[Span]) -> list[str]:
    """BIO tags of the words of a text from spans of characters. Raises ValueError for one that is not made of whole words."""
    words = words_of(text)
    firsts = {start: index for index, (start, _) in enumerate(words)}
    lasts = {end: index for index, (_, end) in enumerate(words)}
    tags = [OUTSIDE] * len(words)
    for name, start, end in sorted(spans, key=lambda span: span[1:]):
        said = f'span {start}–{end} ("{text[start:end][:40]}", {name})'
        if not 0 <= start < end <= len(text):
            raise ValueError(f"span {start}–{end} ({name}) is not inside the text of {len(text)} characters")
        while end > start and text[end - 1].isspace():
            end -= 1
        while start < end and text[start].isspace():
            start += 1
        if start not in firsts or end not in lasts:
            raise ValueError(f"{said} cuts a word; spans hold whole words")
        inside = range(firsts[start], lasts[end] + 1)
        if any(tags[index] != OUTSIDE for index in inside):
            raise ValueError(f"{said} overlaps another; each word has one tag")
        for index in inside:
            tags[index] = f"{'B' if index == inside[0] else 'I'}-{name}"
    return tags
