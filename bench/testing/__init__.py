"""The contracts of encoders, tasks and recipes, for everybody's tests and for ``bench check``."""

from bench.testing.agreement import ContractError
from bench.testing.backbone import write_tiny_backbone
from bench.testing.encoders import CHECKS, check_encoder, run_checks
from bench.testing.recipes import RecipeTrial, check_recipe, run_recipe_checks
from bench.testing.rules import CheckOutcome
from bench.testing.tasks import check_task, run_task_checks

__all__ = [
    "CHECKS",
    "CheckOutcome",
    "ContractError",
    "RecipeTrial",
    "check_encoder",
    "check_recipe",
    "check_task",
    "run_checks",
    "run_recipe_checks",
    "run_task_checks",
    "write_tiny_backbone",
]
