"""The network that is trained: the backbone with low-rank weights, and the memory tokens' own input embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adapters import _pooling
from adapters._backbone import Network, look_both_ways
from adapters._lora import sharing
from adapters._training.weights import Lora, trained
from adapters.llm2comp.encoder import embedding_table, memory_states, random_memory
from bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Trainee:
    """The encoder in training. Its frozen weights are those of the backbone, not a copy.

    Attributes:
        network: The backbone with low-rank weights, under the attention of the training.
        memory: Input embeddings of the memory tokens, float32 (k, dim).
    """

    network: Network
    memory: "nn.Parameter"

    def weights(self) -> "dict[str, nn.Parameter]":
        """Return what is trained, by name: the low-rank weights, and the memory rows where there are any."""
        return trained(self.network) | ({"memory": self.memory} if len(self.memory) else {})

    def states(
        self, rows: Sequence[Sequence[int]], *, memory: bool = True
    ) -> "tuple[Tensor, Tensor]":
        """Return token states (b, t, dim) and the mask of the real positions (b, t).

        Args:
            rows: Token ids of each text, special tokens included.
            memory: Whether the memory tokens follow each text.
        """
        import torch

        network, k = self.network, len(self.memory) if memory else 0
        ids, lengths = padded(rows, network, more=k)
        inputs = network.model.get_input_embeddings()(ids)
        if k:
            places = lengths[:, None] + torch.arange(k, device=network.device)
            texts = torch.arange(len(rows), device=network.device)[:, None]
            inputs = inputs.index_put((texts, places), self.memory.to(inputs.dtype))
        mask = torch.arange(ids.shape[1], device=network.device) < lengths[:, None] + k
        needed = not network.causal and len({len(row) for row in rows}) > 1
        return last_states(network, inputs, mask.long() if needed else None), mask

    def slots(self, rows: Sequence[Sequence[int]]) -> "Tensor":
        """Return the states at the memory tokens (b, k, dim)."""
        return memory_states(*self.states(rows), len(self.memory))

    def embeddings(self, rows: Sequence[Sequence[int]]) -> "Tensor":
        """Return the mean of the memory states, or without memory of all states but a beginning-of-text token's: float32 (b, dim)."""
        if len(self.memory):
            return self.slots(rows).float().mean(1)
        states, mask = self.states(rows)
        ids, _ = padded(rows, self.network)
        return _pooling.mean(
            states, _pooling.without_first(ids, mask.long(), self.network.tokenizer.bos_token_id)
        )


def prepared(
    network: Network, k: int, attention: str, *, rank: int, seed: int, words: str = ""
) -> Trainee:
    """Return a trainee with new low-rank weights and new memory rows; the network stays as it is.

    Args:
        network: The backbone under its own attention.
        k: Number of memory tokens.
        attention: "native" or "bidirectional".
        rank: Of the low-rank weights; they are scaled by 2, as 32 / 16 of the paper.
        seed: Of the low-rank weights.
        words: What the memory tokens are at first; see ``first_memory``.
    """
    import torch

    base = attending(network, attention)
    rows = first_memory(network, k, words)
    return Trainee(
        lora(rank).attached(base, seed=seed),
        torch.nn.Parameter(rows.to(network.device, torch.float32)),
    )


def first_memory(network: Network, k: int, words: str) -> "Tensor":
    """Return the input embeddings of the first k tokens of a text, over and over if it has fewer: (k, dim).

    Without words they are the random rows of an encoder that was never trained, whatever the seed of a training.

    Raises:
        UsageError: The words have no token.
    """
    table = embedding_table(network)
    if not words:
        return random_memory(table, k)
    ids = network.tokenizer(words, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError(
            f"expected words for the memory to begin as, got {words!r}, of which the tokenizer makes no token"
        )
    return table[[ids[i % len(ids)] for i in range(k)]]


def attending(network: Network, attention: str) -> Network:
    """Return a network with the same weights under "native" or "bidirectional" attention; the given one stays as it is."""
    out = sharing(network)
    if attention == "bidirectional" and network.causal:
        look_both_ways(out.model)
        return replace(out, causal=False)
    return out


def lora(rank: int) -> Lora:
    """Return the low-rank adaptation of a rank, with the paper's scale of 2."""
    return Lora(rank, 2 * rank)


def last_states(network: Network, inputs: "Tensor", mask: "Tensor | None" = None) -> "Tensor":
    """Return the last states, after the final norm (b, t, dim), of input embeddings (b, t, dim)."""
    out = network.model.base_model(inputs_embeds=inputs, attention_mask=mask, use_cache=False)
    return out.last_hidden_state  # type: ignore[no-any-return]


def padded(
    rows: Sequence[Sequence[int]], network: Network, *, more: int = 0
) -> "tuple[Tensor, Tensor]":
    """Return ids padded on the right (b, t + more) and their lengths (b,)."""
    import torch

    width = max(len(row) for row in rows) + more
    ids = torch.tensor(
        [[*row, *[network.pad_id] * (width - len(row))] for row in rows], device=network.device
    )
    return ids, torch.tensor([len(row) for row in rows], device=network.device)
