"""The GPU driver: a device's memory and streams, and what NVML and the system say of memory."""
