"""LLM2Vec-Gen's answers in words: sampled in the chat template, or decoded from soft prompts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from adapters._generate import (
    Choose,
    choose_likeliest,
    decode,
    draw_uniform,
    end_ids,
    prefill,
    prefill_shared,
    sampler,
)
from adapters._network import Network
from bench.errors import UsageError

_TODAY = "{% macro strftime_now(form) %}26 Jul 2024{% endmacro %}"
"""The date of every day, in a chat template: that of Llama 3.2 where it is not known."""

_TEXT = "\ue000"  # of the private use area: no template has it


class Sampling(NamedTuple):
    """How answers are sampled.

    Attributes:
        new_tokens: Most tokens of an answer.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Number of the likeliest tokens to sample from; 0 for all.
        top_p: Of these, the fewest likeliest ones that together have at least this probability.
    """

    new_tokens: int
    temperature: float
    top_k: int
    top_p: float


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return what the chat template puts before a user's words and after them, without thinking.

    A beginning-of-text token that the tokenizer adds by itself is left out. A template that states
    today's date, as Llama 3.2's, states that of ``_TODAY``, so that a text has one vector.

    Raises:
        UsageError: The tokenizer has no chat template, or one that drops the user's words.
    """
    name = type(tokenizer).__name__
    if not tokenizer.chat_template:
        raise UsageError(
            f"expected a tokenizer with a chat template, got {name} without: "
            "name an instruction-tuned backbone"
        )
    template = tokenizer.get_chat_template()
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": _TEXT}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
        chat_template=_TODAY + template if "strftime_now" in template else template,
    )
    before, found, after = str(rendered).partition(_TEXT)
    if not found:
        raise UsageError(
            f"expected a chat template with the user's words in it, got one of {name} without: "
            "name another backbone"
        )
    bos = tokenizer.bos_token
    if bos and tokenizer("", add_special_tokens=True)["input_ids"][:1] == [tokenizer.bos_token_id]:
        before = before.removeprefix(str(bos))
    return before, after


def sample_answers(
    network: Network, prompts: Sequence[list[int]], sampling: Sampling, seeds: Sequence[list[int]]
) -> tuple[list[list[int]], int]:
    """Return the answer to each prompt, and the tokens that went through the network.

    An answer that ended has the token that ended it; one that was cut off at ``new_tokens`` does
    not.

    Args:
        network: A decoder with its language-model head.
        prompts: Token ids of each prompt; what all begin with is computed once.
        sampling: How.
        seeds: Of each answer, which depends on no other.
    """
    steps = sampling.new_tokens
    choose: Choose = choose_likeliest
    if sampling.temperature:
        uniform = draw_uniform(seeds, steps).to(network.device)
        choose = sampler(
            uniform,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            temperature=sampling.temperature,
        )
    ends = torch.tensor(end_ids(network), device=network.device)
    rows = torch.arange(len(prompts), device=network.device)
    prefix = prefill_shared(network, [prompts], rows, steps)
    made = decode(network, prefix, choose, steps, ends=ends)
    answers = [row[row >= 0].tolist() for row in made.tokens.cpu()]
    return answers, made.computed


def write_from_prompts(network: Network, prompts: Tensor, new_tokens: int) -> Tensor:
    """Return the likeliest tokens after soft prompts (b, n), -1 from the end of each on.

    Args:
        network: A decoder with its language-model head.
        prompts: Input embeddings (b, k, dim), the whole of what it reads.
        new_tokens: Most tokens.
    """
    dtype = network.model.get_input_embeddings().get_parameter("weight").dtype
    ends = torch.tensor(end_ids(network), device=prompts.device)
    mask = torch.ones(prompts.shape[:2], dtype=torch.long, device=prompts.device)
    prefix = prefill(network, prompts.to(dtype), mask, new_tokens)
    tokens = decode(network, prefix, choose_likeliest, new_tokens, ends=ends).tokens
    return torch.where(torch.isin(tokens, ends), -1, tokens)
