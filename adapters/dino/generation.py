"""Texts written from instructions: many prompts at once, each steered away from its counter-labels' prompts.

Every text to be written is a unit of rows: one with its label's prompt, and one for each counter-label, which follows the tokens
that the first one draws. Rows with the same prompt share its computation, and the prompts of one label share their beginning. A
unit leaves the batch when it is done.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapters._backbone import Network
from adapters._drawing import draw_tokens
from adapters._head import head_of
from adapters.dino.debiasing import Sampling, debiased
from adapters.dino.specification import Specification
from bench.encoder import digest, shortened
from bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

Draw = Callable[["Tensor", "Tensor", int], "Tensor"]

QUOTE = '"'
"""What ends a text."""

_FULL = 7 / 8
"""Rows are taken out of the cache once less than this share of them is needed: that costs a copy of it."""


@dataclass(frozen=True)
class Writing:
    """How texts are written.

    Attributes:
        sampling: How a token is drawn.
        new_tokens: Most tokens of a text.
        chat: Whether the first line of an instruction is put to the model as a message, and the rest begins its answer; examples
            before it, which begin with the same line, belong to the message.
        seed: With first text, label and number of a sample, all that decides what is drawn.

    Source:
        Defaults: timoschick/dino at 0e4a052, which generates exactly 40 tokens and cuts at the first quote; here a text ends
        there, and the end of the text stays suppressed before it, so that cut texts have the same distribution.
    """

    sampling: Sampling = field(default_factory=Sampling)
    new_tokens: int = 40
    chat: bool = False
    seed: int = 42


class Wish(NamedTuple):
    """A text to be written; ``x1`` is empty where the task has no first texts."""

    x1: str
    label: str
    sample: int


class Written(NamedTuple):
    """What came of a wish.

    Attributes:
        text: Up to the first quote; empty where it is dropped.
        dropped: Why it is: "no quote", "empty" or "line break"; empty where it is not.
    """

    text: str
    dropped: str


class Generated(NamedTuple):
    """What came of wishes, in their order, and the token positions it took, padding not counted."""

    written: list[Written]
    positions: int


def framed(prompt: str, tokenizer: Any, *, chat: bool) -> str:  # noqa: ANN401 - a tokenizer of transformers
    """Return an instruction as the model reads it.

    Args:
        prompt: The instruction with its first text.
        tokenizer: Of the model; its chat template is used where ``chat`` is set.
        chat: See ``Writing``.

    Raises:
        UsageError: The tokenizer has no chat template.
    """
    if not chat:
        return prompt
    if not tokenizer.chat_template:
        raise UsageError(
            "expected a generator with a chat template for chat=true, got one without: set chat=false, or take another"
        )
    first = prompt.partition("\n")[0]
    end = f"\n{prompt}\n".rindex(f"\n{first}\n") + len(first)
    message, answer = prompt[:end], prompt[end + 1 :]
    turns = [
        {"role": "user", "content": re.sub("^Task: *", "", message, flags=re.MULTILINE).strip()}
    ]
    return (
        str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        + answer
    )


def written(
    network: Network, task: Specification, wishes: Sequence[Wish], writing: Writing
) -> Generated:
    """Return the texts of wishes, written in one batch.

    Args:
        network: A decoder with its language-model head.
        task: What is written for each label.
        wishes: What to write; those of the same first text side by side share most.
        writing: How.

    Raises:
        UsageError: The network is no decoder, or has a head that is not known here; or no chat template where one is asked for.
        DataError: A prompt leaves no room for the text in what the network takes.
    """
    import torch

    chances = torch.from_numpy(_chances(wishes, writing)).to(network.device)

    def draw(scores: "Tensor", units: "Tensor", step: int) -> "Tensor":
        limits = writing.sampling
        return draw_tokens(scores, chances[units, step], top_k=limits.top_k, top_p=limits.top_p)

    with torch.inference_mode():
        tokens, positions = continued(
            network, planned(network, task, wishes, writing), draw, writing
        )
    texts = network.tokenizer.batch_decode(
        [[i for i in row if i >= 0] for row in tokens.tolist()], skip_special_tokens=False
    )
    return Generated(list(map(_cut, texts)), positions)


def _cut(text: str) -> Written:
    text, quote, _ = text.partition(QUOTE)
    reason = (
        "line break"
        if "\n" in text
        else "no quote"
        if not quote
        else ""
        if text.strip()
        else "empty"
    )
    return Written("" if reason else text.strip(), reason)


def ready(
    network: Network, task: Specification, batches: Iterable[Sequence[Wish]], writing: Writing
) -> None:
    """Return when all batches of wishes can be written; arguments as for ``written``, whose errors it raises without writing."""
    head_of(network)
    for wishes in batches:
        _prompts(
            network, task, list(dict.fromkeys((wish.label, wish.x1) for wish in wishes)), writing
        )


class Plan(NamedTuple):
    """The rows of a batch.

    Attributes:
        prompts: Token ids of every distinct prompt, those of a label together.
        sources: Which of all prompts each row starts with (r,).
        members: Rows of each unit (u, 1 + c): its label's first, then its counter-labels'; its own again where it has fewer.
        counters: How many counter-labels each unit has (u,).
    """

    prompts: list[list[list[int]]]
    sources: "Tensor"
    members: "Tensor"
    counters: "Tensor"


def planned(
    network: Network, task: Specification, wishes: Sequence[Wish], writing: Writing
) -> Plan:
    """Return the rows that wishes take; arguments as for ``written``, whose errors it raises."""
    import torch

    steered = bool(writing.sampling.decay)
    labels = {
        wish.label: (wish.label, *(task.labels[wish.label].counter_labels if steered else ()))
        for wish in wishes
    }
    needed = dict.fromkeys((label, wish.x1) for wish in wishes for label in labels[wish.label])
    ordered = [(label, x1) for label in task.labels for other, x1 in needed if other == label]
    number = {key: i for i, key in enumerate(ordered)}
    ids = _prompts(network, task, ordered, writing)
    groups = [[ids[number[key]] for key in ordered if key[0] == label] for label in task.labels]
    sources: list[int] = []
    members: list[list[int]] = []
    width = max(map(len, labels.values()))
    for wish in wishes:
        rows = [len(sources) + k for k in range(len(labels[wish.label]))]
        sources += [number[label, wish.x1] for label in labels[wish.label]]
        members.append([*rows, *rows[:1] * (width - len(rows))])
    counters = [len(labels[wish.label]) - 1 for wish in wishes]
    made = (torch.tensor(part, device=network.device) for part in (sources, members, counters))
    return Plan([group for group in groups if group], *made)


def _prompts(
    network: Network, task: Specification, wanted: Sequence[tuple[str, str]], writing: Writing
) -> list[list[int]]:
    """Return the token ids of the prompts of labels and first texts."""
    texts = [
        framed(task.prompt(label, x1), network.tokenizer, chat=writing.chat) for label, x1 in wanted
    ]
    ids: list[list[int]] = network.tokenizer(
        texts, add_special_tokens=not writing.chat, verbose=False
    )["input_ids"]
    room = network.max_length - writing.new_tokens
    long = next(
        (x1 for (_, x1), prompt in zip(wanted, ids, strict=True) if len(prompt) > room), None
    )
    if long is not None:
        raise DataError(
            f"expected prompts of at most {room} tokens, got more with the first text {shortened(long)}: leave it out"
        )
    return ids


def _chances(wishes: Sequence[Wish], writing: Writing) -> NDArray[np.float32]:
    """Return numbers in [0, 1), float32 (u, t): a wish has its own, whatever it is written together with."""
    seeds = [int(digest([writing.seed, *wish])[:32], 16) for wish in wishes]
    return np.stack(
        [np.random.default_rng(seed).random(writing.new_tokens, np.float32) for seed in seeds]
    )


def continued(network: Network, plan: Plan, draw: Draw, writing: Writing) -> "tuple[Tensor, int]":
    """Return the tokens of each unit, -1 after its end (u, t), and the positions it took.

    Args:
        network: A decoder with its language-model head.
        plan: The rows.
        draw: From debiased log-probabilities, up to a constant of each row (n, v), the numbers of their units (n,) and the number
            of the step to a token each (n,).
        writing: How debiasing is done, and how many steps there are.
    """
    import torch

    from adapters.dino.cache import prefilled

    sampling, never, ends = writing.sampling, *_tables(network)
    head = head_of(network)
    cache, mask, last, cost = prefilled(network, plan.prompts, plan.sources, writing.new_tokens)
    members, counters = plan.members, plan.counters
    tokens = torch.full((len(members), writing.new_tokens), -1, device=network.device)
    units = torch.arange(len(members), device=network.device)
    for step in range(writing.new_tokens):
        logits = head(last)
        logits[:, never] = -torch.inf
        logp = logits.log_softmax(-1)
        token = draw(_steered(logp, members, counters, sampling), units, step)
        tokens[units, step] = token
        going = ~ends[token]
        members, counters, units, token = (
            members[going],
            counters[going],
            units[going],
            token[going],
        )
        if not len(units) or step == writing.new_tokens - 1:
            break
        rows = torch.unique(members)
        cost += len(rows)
        if len(rows) <= _FULL * len(mask):
            cache.batch_select_indices(rows)
            mask, members = mask[rows], torch.searchsorted(rows, members)
        following = token.new_zeros(len(mask)).index_put_(
            (members,), token[:, None].expand_as(members)
        )
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        out = network.model.base_model(
            following[:, None],
            attention_mask=mask,
            position_ids=mask.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        )
        last = out.last_hidden_state[:, -1]
    return tokens, cost


def _steered(logp: "Tensor", members: "Tensor", counters: "Tensor", sampling: Sampling) -> "Tensor":
    """Return the debiased log-probabilities of each unit, up to a constant (u, v), from those of each row (r, v)."""
    scores = logp[members[:, 0]]
    for count in sorted(set(counters.tolist())):
        if count and sampling.decay:
            chosen = (counters == count).nonzero()[:, 0]
            others = [logp[members[chosen, k]] for k in range(1, count + 1)]
            scores[chosen] = debiased(scores[chosen], others, sampling.decay, sampling.floor)
    return scores


@lru_cache(maxsize=1)
def _tables(network: Network) -> "tuple[Tensor, Tensor]":
    """Return the ids that are never drawn, and for each id whether a text is decided by it: it holds a quote or a line break."""
    import torch

    tokenizer = network.tokenizer
    size = network.model.get_output_embeddings().weight.shape[0]  # type: ignore[no-untyped-call]
    never = sorted({*tokenizer.all_special_ids, *range(len(tokenizer), size)})
    texts = tokenizer.batch_decode([[i] for i in range(min(size, len(tokenizer)))])
    ends = [QUOTE in text or "\n" in text for text in texts] + [False] * (size - len(texts))
    return torch.tensor(never, device=network.device), torch.tensor(ends, device=network.device)
