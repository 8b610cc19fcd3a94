"""Arguments of a call that is refused, or fails, before anything reads what they point to."""

from __future__ import annotations

from mamba2_mixer.library import Args, Shape


def arguments(shape: Shape, **changes: object) -> Args:
    """Every pointer another multiple of 4096, float32 throughout."""
    names = [name for name, *_ in Args._fields_]
    pointers = {name: 4096 * (i + 1) for i, name in enumerate(names[names.index("projected") :])}
    return Args(shape=shape, epsilon=1e-5, **{**pointers, **changes})
