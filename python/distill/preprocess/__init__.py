"""A dataset to its cache: scan, decode, compute, write; and the checks of both."""
