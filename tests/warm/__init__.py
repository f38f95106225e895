"""Sides and programs in forks of processes that have imported what they need, and what sides have recorded."""
