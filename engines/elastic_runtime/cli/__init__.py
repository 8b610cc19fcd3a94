"""The command `elastic-run`."""
