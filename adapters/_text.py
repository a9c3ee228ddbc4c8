"""From texts to prompts: text and template as one string, of which only the text is truncated."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters._batching import Prepare, Prompt
from bench.encoder import Item
from bench.errors import EncodingError
from bench.overlap import UNSPACED

if TYPE_CHECKING:  # see _network.py
    from transformers import PreTrainedTokenizerBase

_ACCENTED = "".join(filter(str.isupper, map(chr, range(0xC0, 0x250))))  # Latin capitals
_BEGINS = (
    rf"A-Z0-9{_ACCENTED}\u0386-\u03ab\u0400-\u042f\u0531-\u0556"  # Greek, Cyrillic, Armenian
    "\u05d0-\u0dff\u10a0-\u11ff\uac00-\ud7a3"  # Hebrew to Sinhala, Georgian, Korean: no capitals
)
_OPENING = r"\"'(\[\u00a1\u00ab\u00bf\u2018\u201c\u201e"
_CLOSING = r"\"')\]\u00bb\u2019\u201c\u201d"
_SENTENCE_ENDS = re.compile(
    # WikiText has <unk> for names
    rf"[.!?\u061f][{_CLOSING}]*\s+(?=[{_OPENING}]*(?:[{_BEGINS}]|<unk>))|\n+"
    # full stops that end a sentence in any case: Chinese and Japanese, Hindi, Urdu
    r"|[\u3002\uff01\uff1f\u0964\u06d4]+[\"')\]\u300d\u300f\u201d\u2019\uff09]*\s*"
)
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}\u3000-\u303f\uff01-\uff20]+")


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Return the character spans of a text's sentences, without the white space around them."""
    bounds = [0, *(found.end() for found in _SENTENCE_ENDS.finditer(text)), len(text)]
    spans = []
    for start, end in itertools.pairwise(bounds):
        sentence = text[start:end]
        if sentence.strip():
            spans.append((end - len(sentence.lstrip()), start + len(sentence.rstrip())))
    return spans


def count_words(text: str) -> int:
    """Return the number of words between spaces; of letters in scripts that have no spaces."""
    return sum(1 for _ in _WORD.finditer(text))


class Framed(NamedTuple):
    """A text between what a template puts before and after it."""

    text: str
    before: str = ""
    after: str = ""


def prepare_bare(tokenizer: PreTrainedTokenizerBase, *, limit: int, spans: bool = False) -> Prepare:
    """Return what makes the prompts of items from their texts alone; see ``make_prompts``."""

    def prepare(items: Sequence[Item]) -> list[Prompt]:
        framed = [Framed(item.text) for item in items]
        return make_prompts(tokenizer, framed, limit=limit, spans=spans)

    return prepare


def make_prompts(
    tokenizer: PreTrainedTokenizerBase,
    framed: Sequence[Framed],
    *,
    limit: int,
    cut: Literal["left", "right"] = "right",
    tail: Sequence[int] = (),
    ends: bool = True,
    spans: bool = False,
) -> list[Prompt]:
    """Return one prompt per framed text, at most ``limit`` tokens long.

    Special tokens that the tokenizer adds are kept when a prompt is cut, and so is the tail.

    Args:
        tokenizer: A fast tokenizer.
        framed: Texts with their frames.
        limit: Most tokens, special ones and tail included.
        cut: The side on which tokens are dropped from a prompt that is too long.
        tail: Ids put after everything else, such as memory tokens; no text has them.
        ends: Whether special tokens that the tokenizer adds at the end stay. Where a prompt is to
            be continued, they would end it.
        spans: Whether to fill in the character spans, of positions in the bare text.

    Raises:
        EncodingError: A text is empty, and the tokenizer has no special token to stand for it; or
            it has a token of the tail.
    """
    if not framed:
        return []
    encoded = tokenizer(
        [before + text + after for text, before, after in framed],
        return_attention_mask=False,
        return_special_tokens_mask=True,
        return_offsets_mapping=spans,
        verbose=False,
    )
    made = []
    for i, item in enumerate(framed):
        ids, special = encoded["input_ids"][i], encoded["special_tokens_mask"][i]
        _check_apart(ids, tail, tokenizer)
        if not ends and 0 in special:
            n = len(special) - special[::-1].index(0)
            ids, special = ids[:n], special[:n]
        kept = _keep(special, limit - len(tail), cut)
        chosen = [*(ids[k] for k in kept), *tail]
        if not chosen:
            made.append(_make_blank(tokenizer, spans=spans))
            continue
        places = np.full((len(chosen), 2), -1, np.int32) if spans else None
        if places is not None and kept:
            offsets = np.asarray(encoded["offset_mapping"][i][: len(ids)], np.int32)
            places[: len(kept)] = _move_spans(item, offsets, np.asarray(special, bool))[kept]
        made.append(Prompt(chosen, len(kept) < len(ids), places))
    return made


def _check_apart(
    ids: Sequence[int], tail: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse a token of a text with an id of the tail, such as one added to a tokenizer alone."""
    if found := set(tail).intersection(ids):
        token = min(found)
        raise EncodingError(
            f"expected texts without the ids of memory tokens, {min(tail)} to {max(tail)}, got "
            f"{token} ({tokenizer.convert_ids_to_tokens(token)!r}): use the model's own tokenizer"
        )


def _keep(special: Sequence[int], room: int, cut: str) -> Sequence[int]:
    """Return the positions kept in ``room``: all special ones and as many others as fit."""
    if len(special) <= room:
        return range(len(special))
    content = [i for i, s in enumerate(special) if not s]
    fits = max(room - (len(special) - len(content)), 0)
    kept = set(content[len(content) - fits :] if cut == "left" else content[:fits])
    return [i for i, s in enumerate(special) if s or i in kept]


def _move_spans(
    item: Framed, offsets: NDArray[np.int32], special: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Move offsets in the prompt to the text: (0, 0) for special tokens, (-1, -1) outside it."""
    start, end = len(item.before), len(item.before) + len(item.text)
    low, high = offsets[:, 0], offsets[:, 1]
    inside = ((low < end) & (high > start)) | ((low == high) & (low >= start) & (high <= end))
    spans = np.where(inside[:, None], np.clip(offsets, start, end) - start, -1)
    return np.where(special[:, None], 0, spans).astype(np.int32)


def _make_blank(tokenizer: PreTrainedTokenizerBase, *, spans: bool) -> Prompt:
    """Return the prompt of an empty text under a tokenizer that adds nothing: a special token.

    Raises:
        EncodingError: The tokenizer has none.
    """
    for name in ("bos", "eos", "cls", "pad", "unk"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if token is not None:
            return Prompt([token], spans=np.zeros((1, 2), np.int32) if spans else None)
    raise EncodingError(
        "expected a text with at least one token, got an empty one, "
        "and the tokenizer has no special token: leave it out"
    )
