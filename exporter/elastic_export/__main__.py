"""`python -m elastic_export`."""

from elastic_export.cli import main

main()
