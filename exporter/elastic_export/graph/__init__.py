"""What every stage after the trace knows of a graph: facts, small edits, and how liveness is reckoned with."""
