"""Attention over a cache that it writes in place: `op.py` says what it is, the files beside it are its parts."""
