"""Two implementations must agree: the masked parent in PyTorch and the ONNX file that ships, read back from its bytes."""

from elastic_export.verify.oracle import Oracle
from elastic_export.verify.plan import Plan, make_plan
from elastic_export.verify.report import not_run, report_json
from elastic_export.verify.verify import Verification, make_oracle, require_passed, stored_weight, verify_budget

__all__ = [
    "Oracle",
    "Plan",
    "Verification",
    "make_oracle",
    "make_plan",
    "not_run",
    "report_json",
    "require_passed",
    "stored_weight",
    "verify_budget",
]
