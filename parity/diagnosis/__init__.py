"""Say what a difference is: a permutation, a factor, an eps, a missing residual ... stated only when the data show it.

Every statement is a hypothesis that was tried: what the legacy side recorded, changed as the hypothesis says, is
compared with what the new side recorded. It is made if what remains is rounding, far below the difference itself, and
if no other explanation does as well.
"""
