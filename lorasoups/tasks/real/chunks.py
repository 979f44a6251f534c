"""Plain text in chunks for continued pretraining, cut where a reader would pause."""

import re
from collections.abc import Iterator

_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def chunks(text: str, max_words: int) -> list[str]:
    """Pieces of a text, in order, each of at most ``max_words`` words.

    Whole paragraphs are put together as long as they fit. A longer paragraph is cut at its
    sentences, a longer sentence between words. No word is lost or said twice.

    Args:
        text: any plain text.
        max_words: words (between blanks) per piece, at least 1.
    """
    done: list[str] = []
    words = 0
    for joint, piece in _pieces(text, max_words):
        n = len(piece.split())
        if done and words + n <= max_words:
            done[-1] += joint + piece
            words += n
        else:
            done.append(piece)
            words = n
    return done


def _pieces(text: str, max_words: int) -> Iterator[tuple[str, str]]:
    """What stands between a piece and the one before, and the piece itself."""
    for paragraph in filter(None, map(str.strip, _PARAGRAPH.split(text))):
        if len(paragraph.split()) <= max_words:
            yield "\n\n", paragraph
            continue
        joint = "\n\n"
        for sentence in _SENTENCE.split(paragraph):
            words = sentence.split()
            if len(words) <= max_words:
                yield joint, sentence
            else:
                for at in range(0, len(words), max_words):
                    yield joint, " ".join(words[at : at + max_words])
                    joint = " "
            joint = " "
