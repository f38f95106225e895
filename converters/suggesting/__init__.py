"""Propose rules from one checkpoint's keys to another's: by numbers, names, shapes and structure, and never by guess."""
