"""What InBedder minimises: cross-entropy of the answer given text and question.

For prompt x and answer y_1..y_n, a decoder's loss is the mean of -log p(y_t | x, y_1..y_{t-1}) over
the tokens of all answers and their ends of text. A masked language model replaces y_1..y_n by n
masks and predicts all of them at once; the final special token is not predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adapters._batching import pad_batch
from adapters._head import head_of
from adapters._network import Network
from adapters._training.budget import TokenCounts
from adapters._training.loop import split_batch
from adapters.inbedder.data import AnswerTokens


class AnswerBatch(NamedTuple):
    """A micro-batch of rows, and the number of predicted tokens of the whole batch."""

    rows: list[AnswerTokens]
    predicted: int


@dataclass(frozen=True, eq=False)
class AnswerPrediction:
    """Cross-entropy of the tokens of answers, the mean over those of the batch.

    Attributes:
        network: What is trained, with its language-model head.
        rows: The training rows.
        positions: Tokens computed at once.
    """

    network: Network
    rows: Sequence[AnswerTokens]
    positions: int

    def parts(self, batch: Sequence[int]) -> list[AnswerBatch]:
        """Split a batch into micro-batches of at most ``positions`` tokens."""
        rows = [self.rows[i] for i in batch]
        predicted = sum(len(row.answers) for row in rows)
        parts = []
        for part in split_batch([len(row.ids) for row in rows], self.positions):
            parts.append(AnswerBatch([rows[i] for i in part], predicted))  # noqa: PERF401
        return parts

    def loss(self, part: AnswerBatch) -> tuple[Tensor, TokenCounts]:
        """Return a micro-batch's share of the loss."""
        network = self.network
        ids, mask = pad_batch([row.ids for row in part.rows], network)  # (b, t)
        places = list(chain.from_iterable(row.answers for row in part.rows))
        counts = [len(row.answers) for row in part.rows]
        texts = np.repeat(np.arange(len(part.rows)), counts)
        expected = ids[texts, places]  # (m,)
        if network.decoder:
            before = [k - 1 for k in places]
            logits = head_of(network)(network.hidden_states(ids, mask)[texts, before])
        else:
            ids[texts, places] = torch.tensor(network.tokenizer.mask_token_id, device=ids.device)
            logits = network.model(input_ids=ids, attention_mask=mask).logits[texts, places]
        loss = cross_entropy(logits.float(), expected, reduction="sum") / part.predicted
        return loss, TokenCounts(trained=int(mask.sum()))
