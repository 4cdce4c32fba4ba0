"""Splitting a line of rules into words, and quoting a word, as iptables-restore and iptables-save do it.

This is not the shell's quoting: only the double quote quotes, the backslash escapes only inside quotes,
and a closing quote ends the word (iptables/xshared.c, add_param_to_argv; libxtables, xtables_save_string).
"""

from __future__ import annotations

import re

WORD = re.compile(r'[ \t]*+(?:([^ \t"]++)(?!")|"((?:[^"\\]++|\\.)*+)")', re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def split_words(text: str) -> list[str]:
    """The words of a line. A quote that is never closed is a ValueError."""
    tidy = _tidily(text)
    if tidy is not None:
        return tidy
    words: list[str] = []
    place, end = 0, len(text)
    while place < end:
        found = WORD.match(text, place)
        if found is None:
            if not text[place:].strip(" \t"):
                break
            return _slowly(text)
        plain, quoted = found.groups()
        words.append(plain if plain is not None else ESCAPED.sub(r"\1", quoted) if "\\" in quoted else quoted)
        place = found.end()
    return words


def _tidily(text: str) -> list[str] | None:
    """As iptables-save prints nearly all: one blank between words, quotes around whole words. None: there is more to it."""
    if "  " in text or "\t" in text or "\\" in text or text[:1] == " " or text[-1:] == " ":
        return None
    parts = text.split('"')
    if len(parts) == 1:
        return text.split(" ") if text else []
    if not len(parts) & 1 or any(part and part[-1] != " " for part in parts[:-1:2]):
        return None
    outside = [part.strip(" ") for part in parts[::2]]
    words = outside[0].split(" ") if outside[0] else []
    for quoted, after in zip(parts[1::2], outside[1:], strict=True):
        words.append(quoted)
        if after:
            words += after.split(" ")
    return words


def _slowly(text: str) -> list[str]:
    """Letter by letter: for a quote that opens inside a word, and for one that never closes."""
    words: list[str] = []
    word, quoted, escaped, started = "", False, False, False
    for letter in text:
        if quoted and escaped:
            word, escaped = word + letter, False
        elif quoted and letter == "\\":
            escaped = True
        elif quoted and letter == '"':
            words.append(word)
            word, quoted, started = "", False, False
        elif quoted:
            word += letter
        elif letter == '"':
            quoted = started = True
        elif letter in " \t":
            if started:
                words.append(word)
            word, started = "", False
        else:
            word, started = word + letter, True
    if quoted:
        raise ValueError("a quote is opened and never closed")
    if started:
        words.append(word)
    return words


def quote(word: str) -> str:
    """The word as iptables-save prints a name or a comment."""
    if PLAIN.fullmatch(word):
        return word
    return '"' + re.sub(r"""(["'\\])""", r"\\\1", word) + '"'


def as_word(word: str) -> str:
    """The word as one word of a rule: in quotes only where it would else be two, or none."""
    return quote(word) if not word or " " in word or '"' in word or "\t" in word else word
