"""RMSNorm over the kept channels: `op.py` says what it is, the files beside it are its parts."""
