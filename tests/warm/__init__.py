"""Sides in forks of processes that have imported their code bases: a tenth of the time of a process from scratch."""
