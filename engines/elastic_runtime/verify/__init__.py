"""A bundle against its golden runs."""
