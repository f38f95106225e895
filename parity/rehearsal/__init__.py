"""The whole reproduction, rehearsed: trainings of both sides, conversions, tests, and what they prove."""
