"""Our encoders in the shape mteb asks for."""

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.encoder import (
    Embeddings,
    Encoder,
    Side,
    card,
    checked,
    digest,
    fingerprint,
    instructed_sides,
    select_side,
    similarity_of,
    unwrap,
)
from bench.errors import Unavailable
from bench.tasks.mteb.rows import Columns

if TYPE_CHECKING:
    from mteb import TaskMetadata
    from mteb.models import ModelMeta
    from torch.utils.data import DataLoader


@dataclass(frozen=True)
class MtebEncoder:
    """An encoder in the shape ``mteb.evaluate`` asks for; made by ``as_mteb``."""

    encoder: Encoder
    name: str
    instruction: str = ""

    def encode(
        self,
        inputs: "DataLoader[Any]",
        *,
        task_metadata: "TaskMetadata",
        prompt_type: Side | None = None,
        **_: object,
    ) -> Embeddings:
        """Return float32 (n, dim) for a loader of texts; the encoder chooses the batches.

        Raises:
            EncodingError: As ``bench.encoder.checked``.
        """
        texts = texts_of(inputs)
        asked = instruction_for(
            task_metadata, prompt_type, self.instruction, instructed_sides(self.encoder)
        )
        vectors = select_side(self.encoder, prompt_type).encode(texts, instruction=asked)
        return checked(np.require(vectors, requirements="W"), texts)  # torch takes no others

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:  # noqa: ANN401 - arrays
        """Return the encoder's similarities (n1, n2), with which a retrieval ranks."""
        from mteb.models.model_meta import ScoringFunction
        from mteb.similarity_functions import select_similarity

        kind = ScoringFunction(similarity_of(self.encoder))
        return select_similarity(embeddings1, embeddings2, kind)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:  # noqa: ANN401
        """Return the encoder's similarities row by row (n,)."""
        from mteb.models.model_meta import ScoringFunction
        from mteb.similarity_functions import select_pairwise_similarity

        kind = ScoringFunction(similarity_of(self.encoder))
        return select_pairwise_similarity(embeddings1, embeddings2, kind)

    @functools.cached_property
    def mteb_model_meta(self) -> "ModelMeta":
        """Name and fingerprint, which keep encoders apart in mteb's cache of results.

        So does an instruction that replaces the prompts of the tasks: it gives other vectors.
        """
        from mteb.models import ModelMeta

        name, revision = re.sub(r"[^\w.+-]+", "_", self.name), fingerprint(self.encoder)
        if self.instruction:
            revision = digest([revision, self.instruction])[:16]
        return ModelMeta.create_empty(overwrites={"name": f"bench/{name}", "revision": revision})


def as_mteb(encoder: Encoder, *, name: str = "", instruction: str = "") -> MtebEncoder:
    """Return the encoder as a model for ``mteb.evaluate``.

    Args:
        encoder: Any encoder.
        name: What mteb's results should call it; its class by default.
        instruction: Replaces the prompts of the tasks.

    Raises:
        Unavailable: The encoder is fitted to the texts that are evaluated: mteb encodes the two
            sides of pairs, or training and test texts, apart, and each would get a map of its own.
    """
    if card(encoder).transductive:
        raise Unavailable(
            "mteb encodes the texts of a task in several calls, to each of which this encoder "
            "would be fitted anew: --set texts= names other texts than the evaluated ones"
        )
    return MtebEncoder(encoder, name or type(unwrap(encoder)).__name__, instruction)


def instruction_for(
    metadata: "TaskMetadata", side: str | None, instruction: str = "", sides: Collection[str] = ()
) -> str:
    """Return the instruction for a text of an mteb task; "" where it gets none.

    Args:
        metadata: The task's. A prompt that it has for documents alone is theirs, whatever ``sides``
            says.
        side: "query", "document" or None where the task has only one kind of text.
        instruction: Replaces the task's own prompt.
        sides: Those that get the instruction, by the encoder.
    """
    prompt = instruction or metadata.prompt or ""
    prompts = prompt if isinstance(prompt, Mapping) else {"query": prompt}
    if side == "document" and prompts.get(side):
        return str(prompts[side])
    return str(prompts.get("query", "")) if side is None or side in sides else ""


def texts_of(loader: "DataLoader[Any]") -> list[str]:
    """Return the texts of mteb's loader, the whole column at once where its data set has one."""
    from datasets import Dataset

    rows = loader.dataset
    if isinstance(rows, Columns | Dataset) and "text" in rows.column_names:
        return list(rows["text"][:])
    return list(chain(*(batch["text"] for batch in loader)))
