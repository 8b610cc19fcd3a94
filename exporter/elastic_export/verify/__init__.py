"""Two implementations must agree: the masked parent in PyTorch and the ONNX file that ships, read from its bytes."""

from elastic_export.verify.oracle import Oracle
from elastic_export.verify.plan import Plan, make_plan
from elastic_export.verify.report import engines_not_run, no_verification, report_of
from elastic_export.verify.verify import (
    Subject,
    Verification,
    make_oracle,
    require_passed,
    stored_weight,
    verify_budgets,
)

__all__ = [
    "Oracle",
    "Plan",
    "Subject",
    "Verification",
    "engines_not_run",
    "make_oracle",
    "make_plan",
    "no_verification",
    "report_of",
    "require_passed",
    "stored_weight",
    "verify_budgets",
]
