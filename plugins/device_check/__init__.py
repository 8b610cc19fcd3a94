"""Everything about the plugins that needs a GPU, in one command: `python plugins/device_check --help`."""
