"""QuIP's question generator: from a passage it writes an answer, a separator and a question.

Jia, Lewis, Zettlemoyer (Findings of ACL 2022), section 3: the generator is tuned on human-written
questions (BART-large in the paper; here a decoder or an encoder-decoder), and writes ten questions
on each passage by nucleus sampling with p = 0.6. Nothing is filtered.
"""

from collections.abc import Iterator, Sequence

import torch
from transformers import GenerationConfig

from adapters._batching import pad_batch
from adapters._generate import decode, draw_uniform, prefill, sampler
from adapters._network import Network
from adapters._sharing import shareable
from adapters._trainable import fork_seed
from adapters.quip.data import MAX_PASSAGE, Passage, Question
from adapters.quip.objective import GeneratorRow
from bench.encoder import digest

ASK, SEPARATOR = "\n\nAnswer:", "\nQuestion:"
"""What follows the passage in a decoder, and what separates answer and question."""

NEW_TOKENS = 56
"""Most tokens of an answer with its question."""

_LONGEST_ANSWER = 120
"""Characters; the answers of some sets are sentences, which teach to copy."""


def make_generator_prompts(network: Network, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of passages as the generator reads them, cut at ``MAX_PASSAGE``."""
    if not texts:
        return []
    tokenizer = network.tokenizer
    if network.seq2seq:
        limit = MAX_PASSAGE + tokenizer.num_special_tokens_to_add()
        encoded = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        return [list(ids) for ids in encoded]
    ask = tokenizer(ASK, add_special_tokens=False)["input_ids"]
    starts = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    start = [tokenizer.bos_token_id] if starts else []
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [[*start, *ids[:MAX_PASSAGE], *ask] for ids in encoded]


def make_generator_rows(network: Network, passages: Sequence[Passage]) -> list[GeneratorRow]:
    """Return what the generator learns from: human questions with short answers.

    The questions of a passage share a row if the network can share the passage's computation.
    """
    prompts = make_generator_prompts(network, [passage.text for passage in passages])
    written = []
    for passage in passages:
        texts = [_write_target(passage.text, question) for question in passage.questions]
        written.append(_tokenize_targets(network, [text for text in texts if text]))
    widths = [len(p) + sum(map(len, outputs)) for p, outputs in zip(prompts, written, strict=True)]
    sharing = not network.seq2seq and shareable(network, max(widths, default=0))
    rows = []
    for prompt, outputs in zip(prompts, written, strict=True):
        if sharing and outputs:
            rows.append(GeneratorRow(prompt, outputs))
        else:
            rows += [GeneratorRow(prompt, [output]) for output in outputs]
    return rows


def _write_target(passage: str, question: Question) -> str:
    """Return what is written for a question; nothing if its answer is unknown or too long."""
    if not 0 < question.end - question.start <= _LONGEST_ANSWER:
        return ""
    return f" {passage[question.start : question.end]}{SEPARATOR} {question.text}"


def _tokenize_targets(network: Network, texts: list[str]) -> list[list[int]]:
    tokenizer = network.tokenizer
    if not texts:
        return []
    if network.seq2seq:
        bare = [text.strip() for text in texts]
        return list(tokenizer(text_target=bare, verbose=False)["input_ids"])
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [[*ids, tokenizer.eos_token_id] for ids in encoded]


def sample_outputs(
    network: Network,
    prompts: Sequence[list[int]],
    numbers: Sequence[int],
    *,
    samples: int,
    top_p: float,
    seed: int,
) -> list[list[list[int]]]:
    """Return samples of what the generator writes on each passage, token ids without special ones.

    Args:
        network: The generator.
        prompts: Token ids, see ``make_generator_prompts``; each is computed once for all samples.
        numbers: Of the prompts. With the seed they decide a decoder's random numbers, whatever
            else is in the batch; a model with an encoder has one seed for the batch.
        samples: Samples of each prompt.
        top_p: Probability of the nucleus.
        seed: Random seed.
    """
    ids, mask = pad_batch(prompts, network)
    special = torch.tensor(sorted(network.tokenizer.all_special_ids), device=ids.device)
    if network.seq2seq:
        settings = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=True,
            top_p=top_p,
            top_k=0,
            num_return_sequences=samples,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=network.pad_id,
            eos_token_id=network.tokenizer.eos_token_id,
            decoder_start_token_id=network.model.config.decoder_start_token_id,
        )
        # the model's own settings, such as BART's beams, would fill in what is left out
        network.model.generation_config = settings
        with (
            fork_seed(int(digest([seed, *numbers])[:15], 16), network.device),
            torch.inference_mode(),
        ):
            tokens = network.model.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=mask, generation_config=settings
            )[:, 1:]
    else:
        uniform = draw_uniform([[seed, number] for number in numbers], NEW_TOKENS, samples=samples)
        choose = sampler(uniform.to(ids.device), top_p=top_p)
        prefix = prefill(network, ids, mask, NEW_TOKENS, samples=samples)
        tokens = decode(network, prefix, choose, NEW_TOKENS, ends=special).tokens
    written = (tokens >= 0) & ~torch.isin(tokens, special)
    rows = [row[own].tolist() for row, own in zip(tokens, written, strict=True)]
    return [rows[i : i + samples] for i in range(0, len(rows), samples)]


def parse_questions(passage: str, texts: Sequence[str]) -> Iterator[Question]:
    """Yield the questions of what was written, each with its answer's place if the passage has it.

    A text without separator or question is skipped.
    """
    for text in texts:
        answer, _, question = text.partition(SEPARATOR.strip())
        answer, question = answer.strip(), " ".join(question.split())
        start = passage.find(answer) if answer else -1
        end = start + len(answer) if start >= 0 else -1
        if question:
            yield Question(question, start, end)
