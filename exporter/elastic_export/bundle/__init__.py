"""The last stage: everything that was made becomes one folder, or nothing does."""

from elastic_export.bundle.beside import failed_report
from elastic_export.bundle.fingerprint import fingerprint
from elastic_export.bundle.output import check_output
from elastic_export.bundle.writer import BundleWriter

__all__ = ["BundleWriter", "check_output", "failed_report", "fingerprint"]
