"""The last stage: everything that was made becomes one folder, or nothing does."""
