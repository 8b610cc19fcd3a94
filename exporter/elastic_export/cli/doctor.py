"""`elastic-export doctor`: what of this machine an export would use."""

from __future__ import annotations

import click

from elastic_export.bundle.versions import versions
from elastic_export.plan.fit_table import align


@click.command()
def doctor() -> None:
    """Say what this machine has for building and running engines.

    Exit 1 if none can be built.
    """
    from elastic_export.engine.doctor import engine_facts  # noqa: PLC0415  # builds, hence onnx: for this command only

    facts = engine_facts()
    rows = [["what", "state", "detail"], *([f.name, f.state, f.detail] for f in facts)]
    known = {fact.name for fact in facts}
    rows += [[name, "ok", version] for name, version in versions().items() if name not in known]
    click.echo("\n".join(align(rows, left=(0, 1, 2))))
    raise SystemExit(1 if any(fact.state == "bad" for fact in facts) else 0)
