"""A checkpoint as people have it: config, shards and budget file become an architecture, budgets and lazy tensors."""
