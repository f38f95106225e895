"""Kinds of records, as they stand in a trace.

Adapters and the recorder use these names; what a kind says of a record, and whom it blames, is known to the comparing
side (:class:`parity.traces.kinds.Kind`).
"""

from __future__ import annotations

#: Arguments of a module's call, and what it returns.
MODULE_IN, MODULE_OUT = "module_in", "module_out"
#: What one call adds to the gradient of its input, and the gradient of its output.
IN_GRAD, OUT_GRAD = "in_grad", "out_grad"
#: Arguments of a method, by the method's name and the parameter's, and its results, by the method's name.
METHOD_IN, METHOD_OUT = "method_in", "method_out"
#: A decision, a random draw or a final result, and what a decision rests on or a draw asks for.
TAP, BASIS = "tap", "basis"
#: States of random number generators.
RANDOM = "random"
#: What building and initialising a model makes of a parameter; the weights that are loaded.
INIT, PARAM = "init", "param"
#: Loss terms, and the gradients of parameters.
LOSS, GRAD = "loss", "grad"
#: Of a training's step: the optimizer and its wrapper, a parameter's options, what gradients are clipped by.
UPDATE, SETTING, CLIP = "update", "setting", "clip"
#: What a step leaves: the optimizer's state of a parameter, and all parameters and buffers.
OPTIM_STATE, STATE = "optim_state", "state"

#: Slot of what a random draw gives; name of the final results of inference among taps.
DRAWN, RESULT = "draw", "result"
