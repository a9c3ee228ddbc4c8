"""Losses of new tokens, R and A on held-out samples."""

from collections.abc import Sequence

import torch

from adapters._trainable import autocast
from adapters._training.states import embed_ids
from adapters.llm2vec_gen.objective import GenerativeAlignment


def measure(objective: GenerativeAlignment, numbers: Sequence[int]) -> tuple[dict[str, float], int]:
    """Return losses on samples that are not trained on, and the tokens that it took.

    ``alignment`` stands beside ``no_skill``, that of the mean vector of those trained on;
    ``reconstruction``, in nats a token, beside that from another sample's soft prompts
    (``from_another``) and from the embeddings of the answer's own first k tokens
    (``from_itself``).
    """
    if not numbers:
        return {}, 0
    k = len(objective.layers.tokens)
    mean = objective.targets[: numbers[0]].mean(0)  # the first ones are trained on
    states = objective.read_samples(numbers) * objective.scale
    answers = [objective.samples[i].answer for i in numbers]
    with torch.no_grad(), autocast(objective.frozen):
        prompts = objective.layers.soft_prompts(states)
        found = {
            "alignment": float(objective.misalignment(prompts, numbers).mean()),
            "no_skill": float((objective.targets[list(numbers)] - mean).square().mean()),
        }
        tables = {"reconstruction": prompts, "from_another": prompts.roll(1, 0)}
        for name, inputs in tables.items():
            found[name] = _mean_surprise(objective, inputs, answers)
        long = [answer for answer in answers if len(answer) >= k]
        if long:
            own = torch.stack([embed_ids(objective.frozen, answer[:k]) for answer in long])
            found["from_itself"] = _mean_surprise(objective, own, long)
    read = sum(len(objective.samples[i].query) + k for i in numbers)
    decoded = 2 * sum(len(answer) + k - 1 for answer in answers)
    decoded += sum(len(answer) + k - 1 for answer in long)
    return {name: round(value, 4) for name, value in found.items()}, read + decoded


def _mean_surprise(
    objective: GenerativeAlignment, prompts: torch.Tensor, answers: Sequence[list[int]]
) -> float:
    """Return the mean of -log p over all tokens of the answers, in nats."""
    total = 0.0
    for start in range(0, len(answers), 16):
        rows = slice(start, start + 16)
        total += float(objective.surprise(prompts[rows], answers[rows]))
    return total / sum(map(len, answers))
