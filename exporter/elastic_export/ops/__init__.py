"""The ops of domain `elastic`: one folder an op, one object that says what every stage needs to know of it."""
