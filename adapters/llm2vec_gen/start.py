"""The layers of LLM2Vec-Gen as training begins: random, or words and a ridge regression."""

from dataclasses import replace

import torch

from adapters._network import Network, embedding_table
from adapters._trainable import fork_seed
from adapters._training.states import embed_rows
from adapters.llm2vec_gen.data import Target, fit_ridge
from adapters.llm2vec_gen.encoder import AnswerLayers, make_layers
from adapters.llm2vec_gen.objective import GenerativeAlignment

_MOST = 1000
"""Most samples of the ridge regression."""


def random_layers(network: Network, k: int, out: int, seed: int) -> AnswerLayers:
    """Return layers as the released code begins: torch's linear ones, and rows around the mean.

    Rows have the mean and the standard deviation of the table of input embeddings, in each
    dimension; the released code leaves them to transformers, which draws rows for a table that
    grows, from its mean and covariance, and keeps unused ones of a larger table.
    """
    table = embedding_table(network).float().cpu()
    with fork_seed(seed, "cpu"):
        tokens = table.mean(0) + table.std(0) * torch.randn(k, table.shape[1])
        return AnswerLayers(tokens, out).to(network.device)


def fit_start(
    objective: GenerativeAlignment, target: Target, words: str, trained: int
) -> tuple[GenerativeAlignment, float, int]:
    """Return the objective with words as new tokens, R the identity and A a ridge regression.

    Also the strength of the ridge, and the tokens that were read. States are scaled to the
    root mean square of the input embeddings.
    """
    network, out = objective.frozen, target.vectors.shape[1]
    k = len(objective.layers.tokens)
    plain = make_layers(network, k, words)
    objective = replace(objective, layers=plain)
    numbers = range(min(trained, _MOST))
    states = objective.read_samples(numbers)  # (n, k, dim)
    table = embed_rows(network, embedding_table(network)).float()
    scale = float(table.square().mean().sqrt() / states.square().mean().sqrt())
    inputs = states.mean(1).cpu() * scale
    weight, bias, ridge = fit_ridge(inputs, target.vectors[: len(numbers)])
    with torch.random.fork_rng([]), torch.no_grad():  # linear layers draw their weights
        layers = AnswerLayers(plain.tokens.detach(), out)
        layers.reconstruction.load_state_dict(plain.reconstruction.state_dict())
        layers.alignment.weight.copy_(weight)
        layers.alignment.bias.copy_(bias)
    tokens = sum(len(objective.samples[i].query) + k for i in numbers)
    layers = layers.to(network.device)
    return replace(objective, layers=layers, scale=scale), ridge, tokens
