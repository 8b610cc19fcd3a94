"""Formats of quantised matrices: what each stores, and what it means in float32.

One object a format, in a file of its own and in the list of `all_formats`. Who reads a checkpoint (`reader`) asks the
list and knows no format by its name.
"""
