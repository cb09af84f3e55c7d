"""Languages: what they are called, and the codes by which multilingual models know them."""

import re
from collections.abc import Sequence
from typing import Any

from hf_tuner import catalog
from hf_tuner.errors import UsageError

NAMES = {
    "af": ("afr", "Afrikaans"), "am": ("amh", "Amharic"), "ar": ("arb", "Arabic"), "az": ("azj", "Azerbaijani"),
    "be": ("bel", "Belarusian"), "bg": ("bul", "Bulgarian"), "bn": ("ben", "Bengali"), "bs": ("bos", "Bosnian"),
    "ca": ("cat", "Catalan"), "cs": ("ces", "Czech"), "cy": ("cym", "Welsh"), "da": ("dan", "Danish"),
    "de": ("deu", "German"), "el": ("ell", "Greek"), "en": ("eng", "English"), "eo": ("epo", "Esperanto"),
    "es": ("spa", "Spanish"), "et": ("est", "Estonian"), "eu": ("eus", "Basque"), "fa": ("pes", "Persian"),
    "fi": ("fin", "Finnish"), "fr": ("fra", "French"), "ga": ("gle", "Irish"), "gd": ("gla", "Scottish Gaelic"),
    "gl": ("glg", "Galician"), "gu": ("guj", "Gujarati"), "ha": ("hau", "Hausa"), "he": ("heb", "Hebrew"),
    "hi": ("hin", "Hindi"), "hr": ("hrv", "Croatian"), "hu": ("hun", "Hungarian"), "hy": ("hye", "Armenian"),
    "id": ("ind", "Indonesian"), "ig": ("ibo", "Igbo"), "is": ("isl", "Icelandic"), "it": ("ita", "Italian"),
    "ja": ("jpn", "Japanese"), "jv": ("jav", "Javanese"), "ka": ("kat", "Georgian"), "kk": ("kaz", "Kazakh"),
    "km": ("khm", "Khmer"), "kn": ("kan", "Kannada"), "ko": ("kor", "Korean"), "ky": ("kir", "Kyrgyz"),
    "lb": ("ltz", "Luxembourgish"), "lo": ("lao", "Lao"), "lt": ("lit", "Lithuanian"), "lv": ("lvs", "Latvian"),
    "mk": ("mkd", "Macedonian"), "ml": ("mal", "Malayalam"), "mn": ("khk", "Mongolian"), "mr": ("mar", "Marathi"),
    "ms": ("zsm", "Malay"), "mt": ("mlt", "Maltese"), "my": ("mya", "Burmese"), "nb": ("nob", "Norwegian"),
    "ne": ("npi", "Nepali"), "nl": ("nld", "Dutch"), "no": ("nob", "Norwegian"), "pa": ("pan", "Punjabi"),
    "pl": ("pol", "Polish"), "ps": ("pbt", "Pashto"), "pt": ("por", "Portuguese"), "ro": ("ron", "Romanian"),
    "ru": ("rus", "Russian"), "si": ("sin", "Sinhala"), "sk": ("slk", "Slovak"), "sl": ("slv", "Slovenian"),
    "so": ("som", "Somali"), "sq": ("als", "Albanian"), "sr": ("srp", "Serbian"), "sv": ("swe", "Swedish"),
    "sw": ("swh", "Swahili"), "ta": ("tam", "Tamil"), "te": ("tel", "Telugu"), "th": ("tha", "Thai"),
    "tl": ("tgl", "Tagalog"), "tr": ("tur", "Turkish"), "uk": ("ukr", "Ukrainian"), "ur": ("urd", "Urdu"),
    "uz": ("uzn", "Uzbek"), "vi": ("vie", "Vietnamese"), "xh": ("xho", "Xhosa"), "yo": ("yor", "Yoruba"),
    "zh": ("zho", "Chinese"), "zu": ("zul", "Zulu"),
}  # fmt: skip
"""Two-letter code (ISO 639-1) → the three-letter code that NLLB uses (ISO 639-3), and the name in English."""
SPECIAL_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")
"""A language and its script, as NLLB writes them: eng_Latn."""


def two_letters(code: str) -> str | None:
    """The two-letter code of a language written in any of the usual ways (en, en_XX, en-GB, eng_Latn, English); None
    when it is none of the known."""
    first = re.split("[_-]", code.strip())[0].lower()
    if first in NAMES:
        return first
    return next((short for short, names in NAMES.items() if first in (names[0], names[1].lower())), None)


def name_of(code: str) -> str:
    """A language in English words; the code itself where it is not known."""
    short = two_letters(code)
    return NAMES[short][1] if short else code


def codes_of(tokenizer: Any) -> list[str]:
    """The language codes of a multilingual tokenizer (mBART, M2M, NLLB); empty for others."""
    if not hasattr(tokenizer, "src_lang"):
        return []
    for name in ("lang_code_to_id", "lang_code_to_token"):
        known = getattr(tokenizer, name, None)
        if known:
            return list(known)
    return [token for token in tokenizer.all_special_tokens if SPECIAL_CODE.fullmatch(token)]


def model_code(language: str, codes: Sequence[str], flag: str) -> str:
    """The model's code for a language given as it, or in another usual way. Raises UsageError with the nearest ones."""
    if language in codes:
        return language
    short = two_letters(language)
    alike = [code for code in codes if short and two_letters(code) == short]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise UsageError(f"{flag} {language}: this model knows several: {', '.join(alike)}; name one of them")
    raise UsageError(f"{flag}: {catalog.unknown('language of this model', language, list(codes))}")


def code_id(tokenizer: Any, code: str) -> int:
    """The id of a language's token."""
    return int(
        tokenizer.get_lang_id(code) if hasattr(tokenizer, "get_lang_id") else tokenizer.convert_tokens_to_ids(code)
    )
