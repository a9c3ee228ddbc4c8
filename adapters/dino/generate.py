"""DINO's generator: a language model writes texts from instructions, with self-debiasing.

An instruction for a label y puts the first text x1 into a task in words and ends in the quote that
opens x2. Each token is sampled from a distribution in which tokens are scaled down that are
likelier under the instructions of the label's counter-labels (self-debiasing, section 2 of the
paper). With p the next-token distribution under the label's instruction, and p_j the ones under
its counter-labels', all after the same tokens of x2:

    gap(w)   = max(0, max_j p_j(w) - p(w))
    p'(w)    ~ p(w) * max(exp(-decay * gap(w)), 0.01)

Then the ``top_k`` likeliest are kept, then of these the fewest that hold ``top_p``. A text ends at
its first quote; it is dropped if it has none, is empty, or has a line break before it.

Schick, Schuetze. Generating Datasets with Pretrained Language Models. EMNLP 2021. The formats of
files, the defaults and the floor of 0.01 are those of timoschick/dino at 0e4a052. It samples
exactly 40 tokens and cuts afterwards; here a row stops at its quote, which gives cut texts the
same distribution, since the end-of-text token is never sampled.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adapters._backbone import Backbone
from adapters._files import read_json
from adapters._generate import Choose, decode, draw_uniform, prefill_shared, sample_tokens
from adapters._head import head_of
from adapters._network import Network
from adapters._text import Framed, make_prompts
from adapters._training.cost import forward_flops_of
from adapters._training.processes import main_process
from adapters._training.stage import Journal, Stage, read_note
from bench.encoder import digest, shortened
from bench.errors import DataError, unknown
from bench.files import ESCAPED, write_atomic
from bench.recipe import Progress

X1 = "<X1>"
"""Placeholder of the first text in an instruction."""

QUOTE = '"'
"""Ends a text."""

FLOOR = 0.01
"""Least factor by which self-debiasing scales a probability."""

_SPECS = Path(__file__).parent / "specs"
_TASK_NAME = re.compile(r"[A-Za-z0-9\-_.]+")


@dataclass(frozen=True)
class LabelSpec:
    """The text that is generated for a label.

    Attributes:
        instruction: Ends in the quote that opens the text.
        counter_labels: Labels whose texts it should differ from; optional in a file.
    """

    instruction: str
    counter_labels: Sequence[str] = ()


@dataclass(frozen=True)
class TaskSpec:
    """A task in words.

    Attributes:
        task_name: Names its files.
        labels: By name.
    """

    task_name: str
    labels: Mapping[str, LabelSpec]

    @property
    def takes_input(self) -> bool:
        """Whether instructions have a place for a first text."""
        return any(X1 in label.instruction for label in self.labels.values())

    def prompt(self, label: str, x1: str = "") -> str:
        """Return the instruction of a label with the first text in its place."""
        return self.labels[label].instruction.replace(X1, x1)


def spec_names() -> list[str]:
    """Return the names of the packaged task specifications."""
    return sorted(path.stem for path in _SPECS.glob("*.json"))


def read_task(source: str) -> TaskSpec:
    """Return a packaged task specification, by its name, or the one in a JSON file.

    Raises:
        UsageError: There is no such name or file.
        DataError: The file is no specification.
    """
    path = Path(source) if source.endswith(".json") else _SPECS / f"{source}.json"
    if not path.is_file():
        hint = "(or give a .json file)"
        raise unknown("task specification", source, spec_names(), hint=hint)
    return parse_task(read_json(path), str(path))


def parse_task(value: Any, origin: str) -> TaskSpec:  # noqa: ANN401 - any JSON value
    """Return the task specification in a JSON value.

    Args:
        value: The value.
        origin: Its file, for errors.

    Raises:
        DataError: The value breaks a rule of the format.
    """
    try:
        task = TaskSpec(**value)
        labels = {name: LabelSpec(**label) for name, label in value["labels"].items()}
        instructions = [label.instruction for label in labels.values()]
        counters = list(chain(*(label.counter_labels for label in labels.values())))
        rules = {
            "a task_name of letters, digits, '-', '_' and '.'": _TASK_NAME.fullmatch(
                task.task_name
            ),
            "at least one label": labels,
            "instructions that end in a quote": all(text.endswith(QUOTE) for text in instructions),
            f"{X1} once in every instruction, or in none": (
                {text.count(X1) for text in instructions} in ({0}, {1})
            ),
            "counter_labels that are labels": set(counters) <= labels.keys(),
        }
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"expected a task specification in {origin}, got another layout: {error}"
        ) from None
    broken = next((rule for rule, kept in rules.items() if not kept), None)
    if broken:
        raise DataError(f"expected {broken} in {origin}: correct the specification")
    return TaskSpec(task.task_name, labels)


@dataclass(frozen=True)
class Generation:
    """How texts are generated.

    Attributes:
        decay: Decay constant of self-debiasing; 0 turns it off.
        top_k: Number of the likeliest tokens to sample from; 0 for all.
        top_p: Least probability of the tokens to sample from, of those that ``top_k`` leaves.
        new_tokens: Most tokens of a text.
        seed: Random seed. With first text, label and number of the sample it decides a text.
    """

    decay: float = 100.0
    top_k: int = 5
    top_p: float = 0.9
    new_tokens: int = 40
    seed: int = 42

    def settings(self) -> dict[str, Any]:
        """Return the settings as a file of generated texts records them, plain JSON values."""
        sampling = {"decay": self.decay, "floor": FLOOR, "top_k": self.top_k, "top_p": self.top_p}
        chat = False  # an option of earlier versions
        own = {"new_tokens": self.new_tokens, "chat": chat, "seed": self.seed}
        return {"sampling": sampling, **own}


class Request(NamedTuple):
    """A text to generate; ``x1`` is empty for a task without first texts."""

    x1: str
    label: str
    sample: int


class Completion(NamedTuple):
    """The outcome of one request.

    Attributes:
        text: Up to the first quote; empty if dropped.
        dropped: The reason, "no quote", "empty" or "line break"; empty if not dropped.
    """

    text: str
    dropped: str


def debias(own: Tensor, highest: Tensor, decay: float) -> Tensor:
    """Return log-probabilities after self-debiasing, up to a constant of each row (n, v).

    Args:
        own: Log-probabilities under the label's own instruction (n, v).
        highest: The highest ones under any of its counter-labels' instructions (n, v).
        decay: Decay constant.
    """
    gap = (highest.exp() - own.exp()).clamp_(min=0)
    return own + gap.mul_(-decay).clamp_(min=math.log(FLOOR))


@torch.inference_mode()
def complete(
    network: Network, task: TaskSpec, requests: Sequence[Request], generation: Generation
) -> tuple[list[Completion], int]:
    """Generate texts in one batch.

    A text takes one row under its label's instruction and one for each counter-label; the rows of
    a text get the same tokens.

    Args:
        network: A decoder with its language-model head.
        task: The instructions.
        requests: The texts to generate; neighbours with the same first text share most.
        generation: How.

    Returns:
        The outcome of each request, and the number of tokens that went through the network.

    Raises:
        UsageError: The network is no decoder, or has a head that is not supported.
        DataError: A prompt leaves no room for the text.
    """
    prompts, rows, members = _plan_rows(task, requests, generation)
    groups = [list(group) for _, group in groupby(prompts, key=itemgetter(0))]
    ids = [tokenize_prompts(network, task, group, generation) for group in groups]
    sources = torch.tensor(rows, device=network.device)
    seeds = [int(digest([generation.seed, *request])[:32], 16) for request in requests]
    uniform = draw_uniform(seeds, generation.new_tokens).to(network.device)
    never, ends = _special_ids(network)
    choose = _debiased_sampler(_as_tensor(members, network), uniform, never, generation)
    prefix = prefill_shared(network, ids, sources, generation.new_tokens)
    decoded = decode(network, prefix, choose, generation.new_tokens, ends=ends)
    own = decoded.tokens[[row[0] for row in members]].tolist()
    texts = network.tokenizer.batch_decode([_drop_padding(row) for row in own])
    return [_cut_at_quote(text) for text in texts], decoded.computed


def _plan_rows(
    task: TaskSpec, requests: Sequence[Request], generation: Generation
) -> tuple[list[tuple[str, str]], list[int], list[list[int]]]:
    """Return the distinct prompts, label by label, the prompt of each row, and each text's rows."""
    rows: list[tuple[str, str]] = []
    members: list[list[int]] = []  # its own row first
    for request in requests:
        counters = task.labels[request.label].counter_labels if generation.decay else ()
        prompts = [(label, request.x1) for label in (request.label, *counters)]
        members.append(list(range(len(rows), len(rows) + len(prompts))))
        rows += prompts
    order = {label: number for number, label in enumerate(task.labels)}
    distinct = sorted(dict.fromkeys(rows), key=lambda prompt: order[prompt[0]])
    numbers = {prompt: number for number, prompt in enumerate(distinct)}
    return distinct, [numbers[row] for row in rows], members


def _as_tensor(members: list[list[int]], network: Network) -> Tensor:
    """Return the rows of each text, int64 (u, c), its own again where a text has fewer rows."""
    width = max(map(len, members))
    padded = [[*rows, *rows[:1] * (width - len(rows))] for rows in members]
    return torch.tensor(padded, device=network.device)


def _debiased_sampler(
    members: Tensor, uniform: Tensor, never: Tensor, generation: Generation
) -> Choose:
    """Return what samples a token for each text, and gives it to all of its rows.

    Args:
        members: Rows of each text (u, c), its own first; that again where it has fewer.
        uniform: Random numbers in [0, 1) (u, steps).
        never: Ids that are not sampled.
        generation: How.
    """

    def choose(logits: Tensor, rows: Tensor, step: int) -> Tensor:
        left = torch.isin(members[:, 0], rows)  # (u,)
        local = torch.searchsorted(rows, members[left])  # (l, c)
        logits[:, never] = -torch.inf
        log_p = logits.log_softmax(-1)  # (n, v)
        scores = debias(log_p[local[:, 0]], log_p[local].amax(1), generation.decay)  # (l, v)
        top_k = generation.top_k or scores.shape[-1]
        token = sample_tokens(scores, uniform[left, step], top_k=top_k, top_p=generation.top_p)
        return torch.zeros_like(rows).index_put_((local,), token[:, None].expand_as(local))

    return choose


def tokenize_prompts(
    network: Network, task: TaskSpec, prompts: Iterable[tuple[str, str]], generation: Generation
) -> list[list[int]]:
    """Return the token ids of the instructions of labels with first texts.

    Raises:
        DataError: A prompt leaves no room for the text.
    """
    prompts = list(prompts)
    framed = [Framed(task.prompt(label, x1)) for label, x1 in prompts]
    made = make_prompts(network.tokenizer, framed, limit=1 << 30, ends=False)
    ids = [prompt.ids for prompt in made]
    room = network.max_length - generation.new_tokens
    long = [x1 for (_, x1), prompt in zip(prompts, ids, strict=True) if len(prompt) > room]
    if long:
        raise DataError(
            f"expected prompts of at most {room} tokens, "
            f"got more with the first text {shortened(long[0])}: leave it out"
        )
    return ids


def _special_ids(network: Network) -> tuple[Tensor, Tensor]:
    """Return the ids that are never sampled, and those that decide a text: quotes, line breaks."""
    tokenizer = network.tokenizer
    head = network.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    size = head.weight.shape[0]
    never = sorted({*tokenizer.all_special_ids, *range(len(tokenizer), size)})
    texts = tokenizer.batch_decode([[i] for i in range(min(size, len(tokenizer)))])
    ends = [i for i, text in enumerate(texts) if QUOTE in text or "\n" in text]
    return torch.tensor(never, device=network.device), torch.tensor(ends, device=network.device)


def _drop_padding(tokens: Sequence[int]) -> list[int]:
    return [token for token in tokens if token >= 0]


def _cut_at_quote(text: str) -> Completion:
    text, quote, _ = text.partition(QUOTE)
    dropped = ""
    if "\n" in text:
        dropped = "line break"
    elif not quote:
        dropped = "no quote"
    elif not text.strip():
        dropped = "empty"
    return Completion("" if dropped else text.strip(), dropped)


@dataclass(frozen=True)
class Job:
    """The texts of one file.

    Attributes:
        task: The instructions.
        x1: Distinct first texts; a single empty one for a task without them.
        samples: Texts for each first text and label.
        generation: How texts are generated.
        model: Digest of the generator's weights and dtype.
        batch: First texts in a batch. Rounding depends on the batch, so this is part of the job.
    """

    task: TaskSpec
    x1: Sequence[str]
    samples: int
    generation: Generation
    model: str
    batch: int = 32

    def settings(self) -> dict[str, Any]:
        """Return all that decides the file, plain JSON values."""
        return {
            **asdict(self.task),
            "x1": digest(list(self.x1)),
            "inputs": len(self.x1),
            "samples": self.samples,
            "writing": self.generation.settings(),
            "model": self.model,
            "batch": self.batch,
        }

    def paths(self, folder: Path) -> tuple[Path, Path]:
        """Return the file of texts in a folder, and that of its settings and progress."""
        name = self.task.task_name
        return folder / f"{name}-dataset.jsonl", folder / f"{name}-args.json"

    def batches(self) -> list[list[Request]]:
        """Return the requests, first texts of similar length together, the batches shuffled."""
        labels, samples = list(self.task.labels), range(self.samples)
        if not self.task.takes_input:
            requests = [Request("", label, k) for k, label in product(samples, labels)]
            return _split(requests, self.batch * len(labels))
        texts = sorted(self.x1, key=len)
        requests = [Request(*each) for each in product(texts, labels, samples)]
        batches = _split(requests, self.batch * len(labels) * self.samples)
        order = np.random.default_rng(self.generation.seed).permutation(len(batches))
        return [batches[i] for i in order]


def _split(requests: Sequence[Request], size: int) -> list[list[Request]]:
    return [list(requests[i : i + size]) for i in range(0, len(requests), size)]


def generator_digest(backbone: Backbone) -> str:
    """Return the digest of a generator's weights and dtype."""
    card = backbone.card()
    return digest([card.weights, card.dtype])


def copy_finished(job: Job, folder: Path, others: Iterable[Path]) -> None:
    """Copy the job's finished texts from another folder, unless this folder has some.

    Args:
        job: The texts.
        folder: Their folder.
        others: Folders that may have them.
    """
    if job.paths(folder)[1].is_file():
        return
    key, batches = digest(job.settings()), len(job.batches())
    for other in others:
        data, args = job.paths(other)
        note = _read_note(args)
        whole = note and note["progress"].get("batches") == batches
        if whole and data.is_file() and digest(note["of"]) == key:
            for path in (data, args):
                write_atomic(folder / path.name, path.read_bytes())
            return


def generate(
    job: Job, backbone: Backbone, folder: Path, progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the texts of a job; those that its file lacks are generated batch by batch.

    Args:
        job: The texts.
        backbone: A decoder with its language-model head; loaded if a text is missing.
        folder: Folder of the job's files: the texts, as JSON lines, and settings and progress.
        progress: Called with the number of texts.

    Returns:
        The rows of the file, with the keys ``text_a``, ``text_b`` and ``label`` of the released
        data; and what they took: seconds, tokens through the generator and their FLOPs where its
        size is known, and the number of texts asked for, kept, and dropped by reason.

    Raises:
        UsageError: The folder holds texts of another job, or the backbone is no decoder.
        DataError: There are texts without settings, or a prompt leaves no room for the text; all
            prompts are checked before the first text is generated.
        OSError: A file cannot be written.
    """
    data, args = job.paths(folder)
    note = _read_note(args)
    if note and "sha256" not in note and main_process():  # of an earlier version
        write_atomic(args, json.dumps(note, indent=1))
    journal = Journal(Stage(args, job.settings()), data)
    nothing = {"batches": 0, "positions": 0, "seconds": 0.0, "counts": {}}
    done: dict[str, Any] = nothing | journal.progress
    batches = job.batches()
    left = batches[done["batches"] :]
    if left:
        _check_prompts(backbone.load(), job, left)
    for batch in left:
        progress("dino: generating", done["counts"].get("asked", 0), sum(map(len, batches)))
        start = time.perf_counter()
        made, positions = complete(backbone.load(), job.task, batch, job.generation)
        outcomes = Counter(completion.dropped or "kept" for completion in made)
        done = {
            "generator": backbone.card().backbone,
            "batches": done["batches"] + 1,
            "positions": done["positions"] + positions,
            "seconds": done["seconds"] + time.perf_counter() - start,
            "counts": dict(Counter(done["counts"]) + outcomes + Counter(asked=len(made))),
        }
        lines = "".join(_format_rows(job.task, batch, made))
        journal.append(lines.encode("utf-8", ESCAPED), **done)
    rows = [json.loads(line) for line in journal.read().splitlines()]
    card, tokens = backbone.card(), done["positions"]
    took = {"seconds": round(done["seconds"], 1), "inference_tokens": tokens}
    if (forward := forward_flops_of(card)) is not None:
        took["flops"] = forward * tokens
    return rows, took | done["counts"]


def _check_prompts(network: Network, job: Job, batches: Sequence[Sequence[Request]]) -> None:
    head_of(network)
    prompts = dict.fromkeys((request.label, request.x1) for request in chain(*batches))
    tokenize_prompts(network, job.task, prompts, job.generation)


def _format_rows(
    task: TaskSpec, batch: Sequence[Request], made: Sequence[Completion]
) -> Iterator[str]:
    for request, completion in zip(batch, made, strict=True):
        a, b = (request.x1, completion.text) if task.takes_input else (completion.text, None)
        row = {"text_a": a, "text_b": b, "label": request.label}
        if not completion.dropped:
            yield json.dumps(row, ensure_ascii=False) + "\n"


def _read_note(args: Path) -> dict[str, Any]:
    """Return the note on a file of texts, of today's form or the earlier one; {} for none."""
    try:
        note = read_note(args)
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    if "done" in note:
        note.pop("generator", None)
        progress = note.pop("done")
        return {"of": note, "size": progress.pop("size", 0), "progress": progress}
    return note if "progress" in note else {}
