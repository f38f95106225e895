"""A GPU that is not there: tensors on the CPU that call themselves ``cuda:0``, and what follows from that.

* :mod:`.device`: the tensors, and what makes and moves them;
* :mod:`.refusals`: what CUDA would refuse, above all to mix devices;
* :mod:`.waits`: what would make the host wait for the GPU;
* :mod:`.places`: the line of a detector's code that asked for it;
* :mod:`.subject`: one side of a comparison, run on such tensors.

``python -m tools.cuda_standin --help`` runs variants of a side. Torch's version matters: private functions of it are
used, those by which it builds its own made-up tensors.
"""
