"""Names on their way into XML: cleaned, escaped, shortened, and how wide they will be."""

from __future__ import annotations

import re

# What XML 1.0 cannot hold in any form (section 2.2, Char), plus what turns the reading direction of the text around it.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text).replace("\n", " ").replace("\r", " ").replace("\t", " ")


def escape(text: str) -> str:
    """Safe in element content and in double-quoted attributes, of XML and of HTML."""
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#39;")


def middle(text: str, length: int) -> str:
    """Shortened in the middle: both ends of a Pod's name tell something, `web-7d9c…abcde`."""
    text = clean(text)
    if len(text) <= length:
        return text
    tail = min(6, (length - 1) // 2)
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def wrap(text: str, length: int) -> list[str]:
    """Lines of at most `length` characters; a word that is longer is cut."""
    lines = [""]
    for word in clean(text).split():
        while len(word) > length:
            lines.append(word[:length])
            word = word[length:]
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= length:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line]


def mono_width(text: str, size: float) -> float:
    """Every letter of a fixed-width font is about 0.6 em wide."""
    return len(text) * size * 0.602


def sans_width(text: str, size: float) -> float:
    """An estimate on the safe side."""
    return len(text) * size * 0.58
