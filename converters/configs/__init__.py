"""Configs of a code base: carried to another version of it, and compared by what they mean."""
