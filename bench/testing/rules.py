"""Rules of a contract: each is a function, and trying it has an outcome."""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from bench.errors import BenchError, one_line
from bench.testing.agreement import ContractError

log = logging.getLogger(__name__)

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class CheckOutcome:
    """How one rule came out.

    Attributes:
        name: The rule.
        status: passed, failed, or skipped where there is nothing that the rule is about.
        reason: What was got and the likely fault, or why it was skipped.
    """

    name: str
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""


class SkippedRule(Exception):  # noqa: N818 - an outcome
    """The rule does not apply."""


def try_rules(
    rules: Iterable[Callable[[Subject], None]], subject: Subject
) -> Iterator[CheckOutcome]:
    """Yield the outcome of each rule, a function named ``check_...``, on its subject."""
    for check in rules:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            check(subject)
        except SkippedRule as reason:
            yield CheckOutcome(name, "skipped", str(reason))
        except ContractError as error:
            yield CheckOutcome(name, "failed", str(error))
        except BenchError as error:
            yield CheckOutcome(name, "failed", f"raised {type(error).__name__}: {error}")
        except Exception as error:  # a crash of somebody's code is an outcome of the rule it met
            log.debug("%s failed", name, exc_info=True)
            yield CheckOutcome(name, "failed", f"raised {one_line(error)}")
        else:
            yield CheckOutcome(name, "passed")


def try_in_turn(
    rules: Iterable[Callable[[Subject], None]], subject: Subject
) -> Iterator[CheckOutcome]:
    """Yield the outcomes of rules that build on one another: the first broken one ends them."""
    for outcome in try_rules(rules, subject):
        yield outcome
        if outcome.status == "failed":
            return


def check_frozen(made: Any, kind: str) -> None:  # noqa: ANN401 - a dataclass
    """Check that the settings of an encoder or a recipe cannot be changed.

    Raises:
        ContractError: They can.
    """
    for setting in dataclasses.fields(made)[:1]:
        try:
            setattr(made, setting.name, getattr(made, setting.name))
        except dataclasses.FrozenInstanceError:
            return
        raise ContractError(
            f"settings can be changed after the {kind} was made; use @dataclass(frozen=True)"
        )
