"""All of a Mamba-2 layer between in_proj and out_proj: `op.py` says what it is, the files beside it are its parts."""
