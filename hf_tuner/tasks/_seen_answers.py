"""Answers about pictures: how they are scored, what they are set beside, and the worst of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_tuner.tasks._drawn import Drawn
from hf_tuner.tasks._picture_talk import PICTURE, pictures_of
from hf_tuner.tasks._reading import bytes_of
from hf_tuner.tasks._task import Measures, Usage

if TYPE_CHECKING:
    import numpy as np

    from hf_tuner.tasks._pictured import Sample

MEASURED = {
    "auto": "what fits the data",
    "answers": "exact match and F1 of written answers",
    "texts": "BLEU and ROUGE of written texts",
    "likelihood": "how likely the known answers are",
}
SHORT = 4
"""Words up to which the middle answer is one that can be right or wrong."""
PEOPLE = 3
"""From so many answers a question on, people agree more or less: the accuracy of the VQA challenge."""
LOOKED_AT = 2_000
WORST, SHOWN = 10, 12
SAMPLES = ("What is it?", "What colour is it?", "How many are there?", "What is on the left?")


def fitting(rows: Any) -> str:
    """How rows are measured: "answers" for known answers of a few words, "texts" for longer ones, "likelihood" for chats."""
    if "references" not in rows.column_names:
        return "likelihood"
    known = rows.select(range(min(len(rows), LOOKED_AT)))["references"]
    words = sorted(len(one.split()) for row in known for one in row)
    return "answers" if words and words[len(words) // 2] <= SHORT else "texts" if words else "likelihood"


def references_of(rows: Any) -> list[list[str]]:
    """The answers that each row allows: those given, else what its conversation ends with."""
    last = [turns[-1]["content"] if turns else "" for turns in rows["completion"][:]]
    given = rows["references"][:] if "references" in rows.column_names else [[]] * len(last)
    return [list(known) or [answer] for known, answer in zip(given, last, strict=True)]


def measured(score: str, texts: list[str], references: list[list[str]]) -> Measures:
    """Exact match and F1 (with the VQA challenge's accuracy where people answered), or BLEU and ROUGE."""
    import numpy as np

    from hf_tuner.metrics import _vqa as vqa
    from hf_tuner.metrics._weighted import mean

    pairs = list(zip(texts, references, strict=True))
    if score == "texts":
        from hf_tuner.metrics._bleu import bleu
        from hf_tuner.metrics._rouge import UNICODE_NOTE, needs_any_script, rouge

        any_script = needs_any_script(references)
        rows = rouge(texts, references, any_script=any_script)
        found = {"rouge_l": mean(rows["rouge_l"]), "bleu": bleu(texts, references)}
        exact = {"exact_match": mean(np.array([vqa.exact(*pair) for pair in pairs]))}
        return Measures({**found, **exact}, len(texts), {"rouge_l": UNICODE_NOTE} if any_script else {})
    scores = {"exact_match": mean(np.array([vqa.exact(*pair) for pair in pairs])),
              "token_f1": mean(np.array([vqa.overlap(*pair) for pair in pairs]))}  # fmt: skip
    if max(map(len, references), default=0) >= PEOPLE:
        scores = {"vqa_accuracy": mean(np.array([vqa.accuracy(*pair) for pair in pairs])), **scores}
    return Measures(scores, len(texts), {})


def majority(train: Any, rows: int) -> "dict[str, list[np.ndarray]]":
    """The commonest answer of encoded training rows, for every row."""
    answers = Counter(answer for answer in train.with_format(None)["target"][:] if answer)
    return {"majority": [bytes_of(answers.most_common(1)[0][0])] * rows} if answers else {}


def worst(score: str, texts: list[str], rows: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """The answers furthest from those known, worst first, and their rows."""
    from hf_tuner.metrics import _vqa as vqa
    from hf_tuner.metrics._rouge import rouge

    references = references_of(rows)
    if score == "texts":
        near = rouge(texts, references, any_script=True)["rouge_l"].tolist()
    else:
        pairs = list(zip(texts, references, strict=True))
        near = [max(vqa.exact(*pair), 0.9 * vqa.overlap(*pair)) for pair in pairs]
    order = [i for i in sorted(range(len(texts)), key=lambda i: near[i])[:SHOWN] if near[i] < 1]
    prompts = rows.select(order)["prompt"][:] if order else []
    told = [{"text": _question(prompt), "expected": references[i][0], "predicted": texts[i], "score": near[i]}
            for i, prompt in zip(order, prompts, strict=True)]  # fmt: skip
    return told[:WORST], order


def drawn(score: str, texts: list[str], rows: Any) -> list[Drawn]:
    """The pictures with the worst answers, with the question, what was expected and what was said."""
    from hf_tuner.tasks._picture_grid import grid
    from hf_tuner.tasks._vision import decoded

    told, order = worst(score, texts, rows)
    cells = []
    for one, i in zip(told, order, strict=False):
        shown = pictures_of(rows[i]["images"])
        if shown:
            said = f"is {one['expected'][:11]}, said {one['predicted'][:11] or 'nothing'}"
            cells.append((decoded(shown[0]), (one["text"], said)))
    if not cells:
        return []
    text = f"{len(cells)} pictures with an answer that is wrong in part or whole, the worst first"
    return [Drawn("worst-answers", "Worst answers", grid(cells), text)]


def pictured(rows: Any, most: int, seed: int) -> "list[Sample]":
    """The first picture of rows that have one, with the conversation and the answers that are right as well."""
    from itertools import islice

    import numpy as np

    from hf_tuner.tasks._pictured import plain

    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    made, seeing = [], (number for number in order if pictures_of(rows[number]["images"]))
    for number in sorted(islice(seeing, most)):
        row = rows[number]
        shown = pictures_of(row["images"])
        turns = [*row["prompt"], *row["completion"]]
        lines = [f"{turn['role']}: {turn['content'].replace(PICTURE, ' [picture] ').strip()}" for turn in turns]
        others = list(dict.fromkeys(row.get("references") or ()))
        lines += [f"right are: {'; '.join(others)}"] if len(others) > 1 else []
        lines += [f"the first of {len(shown)} pictures"] if len(shown) > 1 else []
        made.append(plain({"image": shown[0]}, number, lines))
    return made


def samples() -> list[dict[str, Any]]:
    """Questions about pictures made from numbers."""
    from hf_tuner.tasks._conversations import plain
    from hf_tuner.tasks._sample_pictures import sample_pictures

    answer = [plain("assistant", "It is a pattern.")]
    return [{"prompt": [plain("user", SAMPLES[i % len(SAMPLES)])], "completion": answer, "tools": "", "images": [picture]}
            for i, picture in enumerate(sample_pictures())]  # fmt: skip


def usage(search: Mapping[str, Any]) -> Usage:
    """Code that asks about one picture, as `predict` does."""
    return Usage(
        reads="a column `image` with paths of pictures, and `question` (or `messages` as JSON)",
        example='[{"image": "picture.jpg", "question": "What is it?"}]',
        answer="It prints what the assistant says of the picture; the processor brings the chat template, and its end token is "
        "where an answer ends.",
        lines=(
            "from PIL import Image",
            "",
            'picture = Image.open("picture.jpg").convert("RGB")',
            'content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]',
            "inputs = processor.apply_chat_template(",
            '    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True,',
            '    return_tensors="pt",',
            ")",
            "tokenizer = processor.tokenizer",
            f"written = model.generate(**inputs, max_new_tokens={search['max_new_tokens']}, "
            f"num_beams={search['num_beams']}, do_sample=False,",
            "                         eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)",
            'print(tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
        ),
    )


def _question(prompt: Sequence[Mapping[str, Any]]) -> str:
    """What was asked last."""
    asked = [message["content"] for message in prompt if message["role"] == "user"]
    return asked[-1].replace(PICTURE, "").strip() if asked else ""
