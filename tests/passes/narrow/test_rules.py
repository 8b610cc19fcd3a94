"""An op without a rule is an error that names it."""

from __future__ import annotations

from typing import Any

import pytest

from elastic_export.passes.narrow.rules import REGISTRY, rule_of
from elastic_export.trace.spec import PARENT_OPS
from elastic_runtime.errors import InternalError


def test_every_op_of_the_parent_graph_has_a_rule() -> None:
    assert set(REGISTRY) == PARENT_OPS


@pytest.mark.parametrize(("op", "shown"), [("Erf", "Erf"), ("elastic.Mystery", "elastic::Mystery")])
def test_an_op_without_a_rule_is_an_error(op: str, shown: str, parse: Any) -> None:
    [node] = parse(f"g (float[3] x) => (float[3] logits) {{ logits = {op}(x) }}").graph
    node.name = "culprit"
    expected = "an op with a liveness rule in graph/standard_rules.py or its folder of ops/"
    text = rf"^node culprit \({shown}\): expected {expected}, found none\."
    with pytest.raises(InternalError, match=text):
        rule_of(node)
