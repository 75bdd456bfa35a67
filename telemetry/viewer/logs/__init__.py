"""Logs: which files, what they hold, and whose records are one run."""
