"""The files of a bundle: records, manifest, weights, golden runs."""
