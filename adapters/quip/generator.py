"""Stage 1 of QuIP: a language model learns to write an answer and a question from a passage, and then writes questions.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), section 3: answer, separator and question are generated from the passage, by
nucleus sampling with p = 0.6, and nothing is filtered. The paper's generator is BART-large; here it is a decoder, or a model that reads
with an encoder and writes with a decoder, as BART does, where one is named.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from adapters._backbone import Network
from adapters._sharing import shareable
from adapters._training.budget import Spent, portions
from adapters._training.loop import Objective, Training, seeded
from adapters.quip.passages import Passage, Question
from adapters.quip.stages import Note, Packed, collated, states_of
from bench.encoder import digest
from bench.recipe import Progress

if TYPE_CHECKING:
    from torch import Tensor

ASK, SEPARATOR = "\n\nAnswer:", "\nQuestion:"
"""What follows the passage, and what stands between answer and question."""

NEW_TOKENS = 56
"""Most tokens of an answer with its question."""

_LONGEST_ANSWER = 120  # characters: the answers of some sets are sentences, which teach to copy
_PASSAGES = 16
"""Passages whose questions are written at once."""

_TOP = 256
"""Likeliest tokens that are looked at first; where they do not hold the nucleus, all are."""


class Target(NamedTuple):
    """Sequences packed into a row, with the tokens that are predicted.

    Attributes:
        row: The passage, then one or several answers with their questions.
        sources: Positions whose states predict.
        targets: Positions of the tokens they predict.
    """

    row: Packed
    sources: list[int]
    targets: list[int]

    @property
    def length(self) -> int:
        """Token positions through the network."""
        return len(self.row.ids)

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.targets)


class Translated(NamedTuple):
    """What an encoder reads, and what its decoder writes."""

    read: list[int]
    written: list[int]

    @property
    def length(self) -> int:
        """Token positions through the network."""
        return len(self.read) + len(self.written)

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.written)


def targets(network: Network, passages: Sequence[Passage], *, limit: int) -> list[Target]:
    """Return the training rows: the questions of a passage share its computation where the network lets them.

    Args:
        network: A decoder.
        passages: With the questions that people asked; a passage without any gives no row.
        limit: Most tokens of a passage.
    """
    tokenizer, sharing = network.tokenizer, shareable(network)
    asked = [p for p in passages if any(_short(q) for q in p.questions)]
    heads = prompt_ids(network, [p.text for p in asked], limit=limit)
    made = []
    for passage, common in zip(asked, heads, strict=True):
        texts = _asked(passage)
        own = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
        made += [_target(common, own)] if sharing else [_target(common, [ids]) for ids in own]
    return made


def _asked(passage: Passage) -> list[str]:
    return [f" {passage.text[q.start : q.end]}{SEPARATOR} {q.text}" for q in passage.questions if _short(q)]


def _short(question: Question) -> bool:
    return 0 < question.end - question.start <= _LONGEST_ANSWER


def _target(common: list[int], own: Sequence[list[int]]) -> Target:
    ids, parts = list(common), [1] * len(common)
    sources: list[int] = []
    aims: list[int] = []
    for k, tokens in enumerate(own, 2):
        sources += [len(common) - 1, *range(len(ids), len(ids) + len(tokens) - 1)]
        aims += range(len(ids), len(ids) + len(tokens))
        ids += tokens
        parts += [k if len(own) > 1 else 1] * len(tokens)
    return Target(Packed(ids, parts), sources, aims)


def prompt_ids(network: Network, texts: Sequence[str], *, limit: int) -> list[list[int]]:
    """Return the ids of passages, cut at ``limit``, with what asks a decoder for an answer and a question."""
    tokenizer = network.tokenizer
    if network.seq2seq:
        room = limit + tokenizer.num_special_tokens_to_add()
        return [list(ids) for ids in tokenizer(list(texts), truncation=True, max_length=room)["input_ids"]] if texts else []
    ask = tokenizer(ASK, add_special_tokens=False)["input_ids"]
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    start = [tokenizer.bos_token_id] if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else []
    return [[*start, *ids[:limit], *ask] for ids in encoded]


RowT = TypeVar("RowT", Target, Translated)


@dataclass(frozen=True, eq=False)
class _Asking(Generic[RowT]):
    """Cross-entropy of answers and questions given their passages, the mean over the tokens of the batch."""

    network: Network
    rows: Sequence[RowT]
    positions: int

    def parts(self, batch: Sequence[int]) -> list[tuple[list[RowT], int]]:
        """Cut a batch into portions of at most ``positions`` positions, each with the number of tokens of the whole batch."""
        rows = [self.rows[i] for i in batch]
        predicted = sum(row.predicted for row in rows)
        return [([rows[k] for k in some], predicted) for some in portions([row.length for row in rows], self.positions)]


class Writing(_Asking[Target]):
    """What a decoder learns: it goes on from the passage."""

    def loss(self, part: tuple[list[Target], int]) -> "tuple[Tensor, Spent]":
        """Return the portion's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        rows, predicted = part
        states = states_of(self.network, [row.row for row in rows])
        ends = np.cumsum([row.length for row in rows])
        begins = ends - [row.length for row in rows]
        sources = torch.from_numpy(np.concatenate([b + np.asarray(row.sources) for b, row in zip(begins, rows, strict=True)]))
        wanted = torch.tensor([row.row.ids[k] for row in rows for k in row.targets], device=states.device)
        logits = self.network.model.get_output_embeddings()(states[sources.to(states.device)])  # type: ignore[no-untyped-call]
        return cross_entropy(logits.float(), wanted, reduction="sum") / predicted, Spent(trained=int(ends[-1]))


def translations(network: Network, passages: Sequence[Passage], *, limit: int) -> list[Translated]:
    """Return the training rows of a model with encoder and decoder; arguments as for ``targets``."""
    asked = [p for p in passages if any(_short(q) for q in p.questions)]
    heads = prompt_ids(network, [p.text for p in asked], limit=limit)
    texts = [(head, text.strip()) for passage, head in zip(asked, heads, strict=True) for text in _asked(passage)]
    if not texts:
        return []
    own = network.tokenizer(text_target=[text for _, text in texts], verbose=False)["input_ids"]
    return [Translated(head, list(ids)) for (head, _), ids in zip(texts, own, strict=True)]


class Translating(_Asking[Translated]):
    """What a model with encoder and decoder learns: the encoder reads the passage."""

    def loss(self, part: tuple[list[Translated], int]) -> "tuple[Tensor, Spent]":
        """Return the portion's share of the batch's loss."""
        import torch
        from torch.nn.functional import cross_entropy

        rows, predicted = part
        ids, mask = collated([Packed(row.read, [1] * len(row.read)) for row in rows], self.network)
        width = max(len(row.written) for row in rows)
        labels = torch.tensor([row.written + [-100] * (width - len(row.written)) for row in rows], device=ids.device)
        before = self.network.model.prepare_decoder_input_ids_from_labels(labels)  # type: ignore[operator]
        logits = self.network.model(input_ids=ids, attention_mask=mask, decoder_input_ids=before, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum", ignore_index=-100)
        return loss / predicted, Spent(trained=sum(row.length for row in rows))


def learning(
    network: Network, passages: Sequence[Passage], *, limit: int, positions: int
) -> tuple[list[int], Callable[[Network], Objective[Any]]]:
    """Return the lengths of the rows that a generator learns from, and their objective for the network that is trained.

    Args:
        network: A decoder, or a model with encoder and decoder.
        passages: With the questions that people asked.
        limit: Most tokens of a passage.
        positions: Token positions computed at once.
    """
    if network.seq2seq:
        pairs = translations(network, passages, limit=limit)
        return [row.length for row in pairs], lambda trained: Translating(trained, pairs, positions)
    rows = targets(network, passages, limit=limit)
    return [row.length for row in rows], lambda trained: Writing(trained, rows, positions)


def written(
    network: Network, passages: Sequence[str], path: Path, training: Training, progress: Progress
) -> tuple[list[list[Question]], dict[str, Any]]:
    """Return the questions a generator writes for each passage, and what that took; go on where an earlier call was killed.

    Args:
        network: With its language-model head, tuned.
        passages: The texts.
        path: File of JSON lines that grows by one batch of passages at a time.
        training: Says how many ``questions`` a passage gets, their ``top_p``, the most tokens of a passage and the seed.
        progress: Told about passages.
    """
    settings = training.recipe
    note = Note(path.with_suffix(".json"), training)
    done = note.read()
    prompts = prompt_ids(network, passages, limit=settings["max_length"])
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    chunks = [order[i : i + _PASSAGES] for i in range(0, len(order), _PASSAGES)]
    lines = _kept_lines(path)
    with path.open("ab") as file:
        for chunk in chunks[len(lines) :] if done is None else ():
            progress("quip: writing questions", len(lines) * _PASSAGES, len(passages))
            start = time.perf_counter()
            made = sampled(
                network, [prompts[i] for i in chunk], chunk, samples=settings["questions"], top_p=settings["top_p"], seed=training.seed
            )
            texts = [network.tokenizer.batch_decode(some, skip_special_tokens=True) for some in made]
            spent = sum(len(prompts[i]) for i in chunk) + sum(len(tokens) for some in made for tokens in some)
            lines.append({"passages": chunk, "written": texts, "positions": spent, "seconds": round(time.perf_counter() - start, 3)})
            file.write(json.dumps(lines[-1], ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    found: list[list[Question]] = [[] for _ in passages]
    for line in lines:
        for i, texts in zip(line["passages"], line["written"], strict=True):
            found[i] = list(_parsed(passages[i], texts))
    if done is None:
        number = sum(map(len, found))
        note.write(
            positions=sum(line["positions"] for line in lines), seconds=round(sum(line["seconds"] for line in lines), 1),
            passages=len(passages), questions=number, malformed=len(passages) * settings["questions"] - number,
            answer_in_passage=sum(q.start >= 0 for some in found for q in some),
        )  # fmt: skip
    return found, note.read() or {}


def _kept_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the file; what a kill left behind them is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _parsed(passage: str, texts: Sequence[str]) -> Iterator[Question]:
    """Yield the questions of what was written, with the place of the answer where the passage has it; not those without a question."""
    for text in texts:
        answer, separator, question = text.partition(SEPARATOR.strip())
        if separator and question.strip():
            start = passage.find(answer.strip()) if answer.strip() else -1
            yield Question(" ".join(question.split()), start, start + len(answer.strip()) if start >= 0 else -1)


def sampled(
    network: Network, prompts: Sequence[list[int]], numbers: Sequence[int], *, samples: int, top_p: float, seed: int
) -> list[list[list[int]]]:
    """Return samples of each prompt's continuation, as token ids without the end.

    Args:
        network: With its language-model head.
        prompts: Token ids; a prompt is computed once for all of its samples.
        numbers: Of the prompts: with the seed they decide the random numbers, whatever else is in a decoder's batch.
        samples: Continuations of each prompt.
        top_p: The nucleus: the fewest tokens that together are at least so likely.
        seed: Of the drawing.
    """
    import torch

    if network.seq2seq:
        return _translated(network, prompts, samples=samples, top_p=top_p, seed=int(digest([seed, *numbers])[:15], 16))
    device, head = network.device, network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    draws = [np.random.default_rng([seed, n]).random((samples, NEW_TOKENS), np.float32) for n in numbers]
    chance = torch.from_numpy(np.concatenate(draws)).to(device)
    ends = torch.tensor(sorted(network.tokenizer.all_special_ids), device=device)
    made: list[list[int]] = [[] for _ in range(len(prompts) * samples)]
    with torch.inference_mode():
        ids, mask = collated([Packed(p, [1] * len(p)) for p in prompts], network)
        out = network.model.base_model(input_ids=ids, attention_mask=mask, use_cache=True)
        lengths, cache = mask.sum(1), out.past_key_values
        last = out.last_hidden_state[torch.arange(len(ids), device=device), lengths - 1]
        cache.batch_repeat_interleave(samples)
        last, mask, lengths = (x.repeat_interleave(samples, 0) for x in (last, mask, lengths))
        rows, alive = torch.arange(len(made), device=device), torch.ones(len(made), dtype=torch.bool, device=device)
        for step in range(NEW_TOKENS):
            token = nucleus(head(last), chance[rows, step], top_p)
            alive &= ~torch.isin(token, ends)
            for row, number, lives in zip(rows.tolist(), token.tolist(), alive.tolist(), strict=True):
                if lives:
                    made[row].append(number)
            if step == NEW_TOKENS - 1 or not alive.any():
                break
            if int(alive.sum()) <= 0.8 * len(alive):  # rows that have ended are dropped once they are worth it
                kept = alive.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                token, mask, lengths, rows, alive = (x[kept] for x in (token, mask, lengths, rows, alive))
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            places = (lengths + step)[:, None]
            out = network.model.base_model(
                input_ids=token[:, None], attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
            )
            last = out.last_hidden_state[:, -1]
    return [made[i : i + samples] for i in range(0, len(made), samples)]


def _translated(network: Network, prompts: Sequence[list[int]], *, samples: int, top_p: float, seed: int) -> list[list[list[int]]]:
    import torch
    from transformers import GenerationConfig

    config, tokenizer = network.model.config, network.tokenizer
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, top_p=top_p, top_k=0, num_return_sequences=samples, max_new_tokens=NEW_TOKENS, pad_token_id=network.pad_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=config.decoder_start_token_id,
    )  # fmt: skip
    ids, mask = collated([Packed(p, [1] * len(p)) for p in prompts], network)
    with seeded(seed, network.device), torch.inference_mode():
        drawn = network.model.generate(  # type: ignore[operator]  # a method, whatever torch's stub says
            input_ids=ids, attention_mask=mask, generation_config=settings
        )
    special = set(tokenizer.all_special_ids)
    made = [[int(i) for i in row[1:] if int(i) not in special] for row in drawn.tolist()]
    return [made[i : i + samples] for i in range(0, len(made), samples)]


def nucleus(scores: "Tensor", chance: "Tensor", top_p: float) -> "Tensor":
    """Return a token (b,) from the fewest likeliest ones that together have at least probability ``top_p``.

    Args:
        scores: Of all tokens (b, v).
        chance: Uniform in [0, 1) (b,).
        top_p: Size of the nucleus.
    """
    import torch

    chances = scores.float().softmax(-1)
    likely, tokens = chances.topk(min(_TOP, chances.shape[-1]))
    if bool((likely.sum(-1) < top_p).any()):
        likely, tokens = chances.sort(-1, descending=True)
    before = likely.cumsum(-1) - likely
    kept = torch.where(before < top_p, likely, 0.0).cumsum(-1)
    choice = torch.searchsorted(kept, (chance * kept[:, -1])[:, None].contiguous(), right=True)
    return tokens.gather(1, choice.clamp(max=tokens.shape[1] - 1))[:, 0]
