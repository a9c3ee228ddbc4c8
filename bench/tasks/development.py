"""Development: tasks for choosing settings, on texts that no reported task has.

Source: validation splits of sets whose test splits are reported, and PubMedQA (Jin et al. 2019),
which no suite reports.
A row of ``qiaojin/PubMedQA``: ``question`` "Do mitochondria play a role in …?", ``long_answer``
"Results depicted mitochondrial dynamics …", ``final_decision`` "yes".
Run: ``bench run --model dino,dino:MINE --suite development``.
Protocol: that of the tasks of the same kinds. Of STS-B and CLINC150 texts that are in a reported
test set are left out: STS-B was put together from the sets of 2012 to 2017. All
packaged tweets are training posts of WNUT-17, so its validation posts are halved instead.
"""

from typing import Any

from bench.task import Task
from bench.tasks.classification import Classification
from bench.tasks.clustering import Clustering
from bench.tasks.groups import DOMAINS
from bench.tasks.ner import NER, Tagged
from bench.tasks.paraphrase import Paraphrase
from bench.tasks.retrieval import Retrieval
from bench.tasks.sts import STS

_STS = tuple(
    (f"mteb/{name}-sts", "", "test") for name in ("sts13", "sts14", "sts15", "stsbenchmark")
)
_MEDICINE: dict[str, Any] = {"data": "qiaojin/PubMedQA", "config": "pqa_labeled", "split": "train"}

TASKS: tuple[Task, ...] = (
    STS(
        "stsb-dev",
        data="mteb/stsbenchmark-sts",
        split="validation",
        apart_from=(*_STS, ("nyu-mll/glue", "mrpc", "validation")),
        about="validation pairs of the STS benchmark whose sentences are in no reported test set",
    ),
    Paraphrase(
        "paws-wiki-dev",
        data="google-research-datasets/paws",
        config="labeled_final",
        split="validation",
        about="validation pairs of PAWS-Wiki",
    ),
    NER(
        "wnut17-dev",
        test=Tagged("leondz/wnut_17", "validation", half="test"),
        train=(Tagged("leondz/wnut_17", "validation", half="train"),),
        about="half of the validation posts of WNUT-17, 6 types; token states, 5 sentences a type",
    ),
    Clustering(
        "clinc-domain-dev",
        data="clinc/clinc_oos",
        config="plus",
        split="validation",
        label="intent",
        groups=DOMAINS,
        instruction="What area of life is the request about?",
        apart_from=(("clinc/clinc_oos", "plus", "test"),),
        about="validation requests of CLINC150, 10 domains and out of scope",
    ),
    Retrieval(
        "pubmedqa-dev",
        **_MEDICINE,
        answer="long_answer",
        instruction="What does the person want to know?",
        about="1,000 questions of medicine, each of which must find what its paper concludes",
    ),
    Classification(
        "pubmedqa-decision-dev",
        **_MEDICINE,
        text="long_answer",
        label="final_decision",
        grouped=False,  # no text is there twice; the shipped trials were scored so
        about="1,000 conclusions of papers: yes, no or maybe; five-fold cross-validation",
    ),
)
"""The tasks for choosing settings, to be asked for by name."""
