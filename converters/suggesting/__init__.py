"""Propose rules from one checkpoint's keys to another's: by numbers, runs, names and sizes, and never by guess."""
