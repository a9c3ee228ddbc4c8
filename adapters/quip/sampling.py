"""Stage 1 of QuIP, second half: the tuned generator writes questions by nucleus sampling; nothing is filtered (section 3)."""

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapters._backbone import Network
from adapters._head import head_of
from adapters._training.loop import Training, seeded
from adapters.quip.generator import SEPARATOR, prompt_ids
from adapters.quip.passages import Question
from adapters.quip.stages import Note, Packed, collated
from bench.encoder import digest
from bench.errors import DataError
from bench.files import ESCAPED
from bench.recipe import Progress

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

NEW_TOKENS = 56
"""Most tokens of an answer with its question."""

_PASSAGES = 16
"""Passages whose questions are written at once."""

_TOP = 256
"""Likeliest tokens that are looked at first; where they do not hold the nucleus, all are."""


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
    note.begun()
    prompts = prompt_ids(network, passages, limit=settings["max_length"])
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    chunks = [order[i : i + _PASSAGES] for i in range(0, len(order), _PASSAGES)]
    lines = _kept_lines(path)
    with path.open("ab") as file:
        for chunk in chunks[len(lines) :]:
            progress("quip: writing questions", len(lines) * _PASSAGES, len(passages))
            start = time.perf_counter()
            made = sampled(
                network,
                [prompts[i] for i in chunk],
                chunk,
                samples=settings["questions"],
                top_p=settings["top_p"],
                seed=training.seed,
            )
            texts = [
                network.tokenizer.batch_decode(some, skip_special_tokens=True) for some in made
            ]
            spent = sum(len(prompts[i]) for i in chunk) + sum(
                len(tokens) for some in made for tokens in some
            )
            lines.append(
                {
                    "passages": chunk,
                    "written": texts,
                    "positions": spent,
                    "seconds": round(time.perf_counter() - start, 3),
                }
            )
            file.write(json.dumps(lines[-1], ensure_ascii=False).encode("utf-8", ESCAPED) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    found: list[list[Question]] = [[] for _ in passages]
    for line in lines:
        for i, texts in zip(line["passages"], line["written"], strict=True):
            found[i] = list(_parsed(passages[i], texts))
    number = sum(map(len, found))
    note.write(
        positions=sum(line["positions"] for line in lines), seconds=round(sum(line["seconds"] for line in lines), 1),
        passages=len(passages), questions=number, malformed=len(passages) * settings["questions"] - number,
        answer_in_passage=sum(q.start >= 0 for some in found for q in some),
    )  # fmt: skip
    if passages and not number:
        log.warning(
            "quip: the generator wrote no question that can be read; a larger generator_share or budget may help"
        )
    return found, note.read() or {}


def _kept_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the file; what a kill left behind them is cut off.

    Raises:
        DataError: A line is broken.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise DataError(
            f"expected a JSON object a line in {path}, got something else ({error}): delete the file"
        ) from error


def _parsed(passage: str, texts: Sequence[str]) -> Iterator[Question]:
    """Yield the questions of what was written, with the place of the answer where the passage has it; not those without a question."""
    for text in texts:
        answer, separator, question = text.partition(SEPARATOR.strip())
        if separator and question.strip():
            start = passage.find(answer.strip()) if answer.strip() else -1
            yield Question(
                " ".join(question.split()), start, start + len(answer.strip()) if start >= 0 else -1
            )


def sampled(
    network: Network,
    prompts: Sequence[list[int]],
    numbers: Sequence[int],
    *,
    samples: int,
    top_p: float,
    seed: int,
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
        return _translated(
            network,
            prompts,
            samples=samples,
            top_p=top_p,
            seed=int(digest([seed, *numbers])[:15], 16),
        )
    device, head = network.device, head_of(network)
    draws = [
        np.random.default_rng([seed, n]).random((samples, NEW_TOKENS), np.float32) for n in numbers
    ]
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
        rows, alive = (
            torch.arange(len(made), device=device),
            torch.ones(len(made), dtype=torch.bool, device=device),
        )
        for step in range(NEW_TOKENS):
            token = nucleus(head(last), chance[rows, step], top_p)
            alive &= ~torch.isin(token, ends)
            for row, number, lives in zip(
                rows.tolist(), token.tolist(), alive.tolist(), strict=True
            ):
                if lives:
                    made[row].append(number)
            if step == NEW_TOKENS - 1 or not alive.any():
                break
            if int(alive.sum()) <= 0.8 * len(
                alive
            ):  # rows that have ended are dropped once they are worth it
                kept = alive.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                token, mask, lengths, rows, alive = (
                    x[kept] for x in (token, mask, lengths, rows, alive)
                )
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            places = (lengths + step)[:, None]
            out = network.model.base_model(
                input_ids=token[:, None],
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
            )
            last = out.last_hidden_state[:, -1]
    return [made[i : i + samples] for i in range(0, len(made), samples)]


def _translated(
    network: Network, prompts: Sequence[list[int]], *, samples: int, top_p: float, seed: int
) -> list[list[list[int]]]:
    import torch
    from transformers import GenerationConfig

    config, tokenizer = network.model.config, network.tokenizer
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, top_p=top_p, top_k=0, num_return_sequences=samples, max_new_tokens=NEW_TOKENS, pad_token_id=network.pad_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=config.decoder_start_token_id,
    )  # fmt: skip
    ids, mask = collated([Packed(p, [1] * len(p)) for p in prompts], network)
    network.model.generation_config = (
        settings  # the model's own, such as BART's beams, would fill in what is left out
    )
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
