"""The first run of a bundle on a card: what is tried, each in a process of its own, and the report that it leaves."""
