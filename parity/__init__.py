"""Prove that a port computes what the legacy code computes: traces, comparison, verdict (CLI ``ddq-parity``)."""
