"""A bundle as a page to be looked at."""
