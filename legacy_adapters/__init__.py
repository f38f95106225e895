"""Run detectors of legacy code bases in a process of their own and record what they compute.

Everything below this package needs Python >= 3.8, torch, numpy and safetensors only, because it runs in the *legacy*
interpreter (:mod:`legacy_adapters.worker`). Only :mod:`legacy_adapters.launch` is used by the parent process.
"""
