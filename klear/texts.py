"""Measures of a text, for curate.py: folding, words and their n-grams, loops, MinHash, language."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")  # Chinese, Japanese: a character
SCRIPTS = {"Japanese": "\u3040-\u30ff", "Chinese": "\u3400-\u9fff", "Korean": "\uac00-\ud7af",
           "Cyrillic": "\u0400-\u04ff", "Arabic": "\u0600-\u06ff", "Devanagari": "\u0900-\u097f",
           "Thai": "\u0e00-\u0e7f"}
COMMON = {"English": "the and of is that to with are this for", "German": "der die und das ist nicht wir mit ein den",
          "French": "le la les et des est que une pour dans", "Spanish": "el los las que es una para con por del",
          "Portuguese": "que uma para com os não do da em são", "Italian": "il che di una per gli è sono della con"}


def digest(*key: Any) -> bytes:
    """12 bytes that are a function of the key alone: to compare texts, and as a random order that stays the same."""
    return blake2b(repr(key).encode("utf-8", "replace"), digest_size=12).digest()


def folded(text: str) -> str:
    """The text with one space for all white space, and case folded."""
    return " ".join(text.split()).casefold()


def ngrams(text: str, n: int, ignore: str = "") -> Iterable[tuple[str, ...]]:
    """All runs of n words (letters and digits, folded) without what the expression `ignore` matches. Of a shorter text
    the whole, so that it still equals itself."""
    text = re.sub(ignore, " ", text) if ignore else text
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return zip(*(words[i:] for i in range(n))) if len(words) >= n else [tuple(words)] if words else []


def most_repeated(text: str, n: int, times: int) -> tuple[int, str]:
    """(occurrences, the words) of the first run of n words that occurs at least `times` times; (0, "") if none does.
    Exact but for collisions of 64-bit hashes; a millisecond for 20,000 characters."""
    words = text.split()
    starts = len(words) - n + 1
    if starts < times:
        return 0, ""
    hashes, rolling = np.fromiter(map(hash, words), np.int64, len(words)), np.zeros(starts, np.int64)
    for i in range(n):
        rolling = rolling * 6364136223846793005 + hashes[i:i + starts]  # wraps around
    _, first, counts = np.unique(rolling, return_index=True, return_counts=True)
    often = counts >= times
    if not often.any():
        return 0, ""
    at = first[often].min()
    return int(counts[first == at][0]), " ".join(words[at:at + n])


def minhash(text: str):
    """datasketch's LeanMinHash over the 5-grams of words: the share of equal values estimates Jaccard's similarity."""
    from datasketch import LeanMinHash, MinHash

    made = MinHash(seed=1)
    made.update_batch([" ".join(gram).encode("utf-8", "replace") for gram in ngrams(text, 5)])
    return LeanMinHash(made)


def first_of_each(records: Iterable, key: Callable, why: str) -> Iterator[tuple]:
    """(record, why) of every record whose key an earlier one has; `why` may name that one as {0}."""
    seen: dict = {}
    return ((r, why.format(first)) for r in records if (first := seen.setdefault(key(r), r)) is not r)


def near_first(records: list, key: Callable, why: str, similarity: float) -> Iterator[tuple]:
    """The same for records whose .signature (of `minhash`) is like that of an earlier one that stays, per key."""
    from datasketch import MinHashLSH

    like = MinHashLSH(min(similarity, 0.9))  # it takes no more; made once, for it computes b and r for long
    groups: dict = defaultdict(lambda: MinHashLSH(params=(like.b, like.r)))
    for number, record in enumerate(records):
        lsh, mine = groups[key(record)], record.signature
        alike = [n for n in lsh.query(mine) if records[n].signature.jaccard(mine) >= similarity]
        if alike:
            yield record, why.format(records[min(alike)])
        else:
            lsh.insert(number, mine)


def language_of(text: str) -> str:
    """A language, a script (Latin where the language cannot be told), or "" without words; code and formulas aside."""
    text = re.sub(r"```.*?(```|$)|\$[^$]*\$|\\[a-zA-Z]+", " ", text, flags=re.DOTALL)
    words = re.findall(r"[^\W\d_]+", text.casefold())
    if not text.isascii():
        letters = sum(map(len, words))
        for script, its in SCRIPTS.items():
            if len(re.findall(f"[{its}]", text)) > (0.05 if script == "Japanese" else 0.2) * letters:
                return script
    counts = Counter(words)
    scores = sorted((sum(counts[word] for word in common.split()), name) for name, common in COMMON.items())
    (second, _), (most, name) = scores[-2:]
    return name if most >= max(3, 1.5 * second) else "Latin" if words else ""


def same_language(a: str, b: str) -> bool:
    """Whether two answers of language_of can be one language."""
    return a == b or not a or not b or "Latin" in (a, b) and {a, b} <= {"Latin", *COMMON}
