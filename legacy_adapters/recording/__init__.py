"""Record what a model computes: calls, methods, taps, gradients; write the trace of it."""
