"""The commands: a table of them, their options, and what they print."""
