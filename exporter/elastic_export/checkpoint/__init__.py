"""Stage 1 of the compile: config, shards and budget file become an architecture, budgets and lazy tensors."""
