"""The contracts of encoders and tasks, for everybody's tests and for ``bench check``."""

from bench.testing.agreement import ContractError
from bench.testing.encoders import CHECKS, CheckOutcome, check_encoder, run_checks
from bench.testing.tasks import check_task

__all__ = ["CHECKS", "CheckOutcome", "ContractError", "check_encoder", "check_task", "run_checks"]
