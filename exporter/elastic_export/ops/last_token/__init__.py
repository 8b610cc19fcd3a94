"""The choice of each row's last real token: `op.py` says what it is, the files beside it are its parts."""
