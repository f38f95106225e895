"""Verdicts and audits for a terminal and as JSON."""
