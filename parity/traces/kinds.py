"""What the kind of a record says of it: what its name names, whom a difference in it blames, how it is told.

A trace and a golden file hold kinds as strings; a :class:`Kind` equals its string, so that a record's ``kind`` can be
compared with one, looked up in a set of them, and turned into one by ``Kind(record.kind)``.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from legacy_adapters.recording import kinds


class Subject(Enum):
    """What the name of a record names."""

    MODULE = "module"
    PARAMETER = "parameter"
    TAP = "tap"
    TERM = "loss term"
    GENERATOR = "generator"
    OPTIMIZER = "optimizer"

    __hash__ = object.__hash__  # each is there once; that of Enum is a call of Python for each look into a dict


class Blame(Enum):
    """Whose code a first difference in a record speaks against, if all before it is equal."""

    CALLER = "caller"  # the code that was running: the record's scope
    MODULE = "module"  # the code of the module that the record names
    NAME = "name"  # no code of a module: the parameter or term itself


class Turn(IntEnum):
    """When records of a kind are made in a pass or a step of a training, first to last."""

    ANY = 0
    START = 1
    FORWARD = 2
    SETTINGS = 3
    BACKWARD = 4
    CLIPPING = 5
    AFTERWARDS = 6


class Kind(str, Enum):
    """A kind of record; its value is the string in a trace.

    Attributes:
        subject: what its records' names name.
        blame: whose code a first difference speaks against.
        turn: when its records are made; kinds of an earlier turn are the cause of those of a later one.
        noun: what a record of it is, for a sentence that goes on with the record's name.
        part: row of the report's table; empty if that is the part of the model that the record names.
    """

    subject: Subject
    blame: Blame
    turn: Turn
    noun: str
    part: str

    def __new__(cls, value: str, subject: Subject, blame: Blame, turn: Turn, noun: str, part: str = "") -> Kind:
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.subject, kind.blame, kind.turn, kind.noun, kind.part = subject, blame, turn, noun, part
        return kind

    # in texts, file formats and keys a kind is its string, under every version of Python
    __str__ = str.__str__
    __repr__ = str.__repr__

    RANDOM = kinds.RANDOM, Subject.GENERATOR, Blame.CALLER, Turn.ANY, "random state of", "random states"
    INIT = kinds.INIT, Subject.PARAMETER, Blame.NAME, Turn.START, "initial value of"
    PARAM = kinds.PARAM, Subject.PARAMETER, Blame.NAME, Turn.START, "weight"
    MODULE_IN = kinds.MODULE_IN, Subject.MODULE, Blame.CALLER, Turn.FORWARD, "input of"
    MODULE_OUT = kinds.MODULE_OUT, Subject.MODULE, Blame.MODULE, Turn.FORWARD, "output of"
    METHOD_IN = kinds.METHOD_IN, Subject.MODULE, Blame.CALLER, Turn.FORWARD, "argument of a method of"
    METHOD_OUT = kinds.METHOD_OUT, Subject.MODULE, Blame.MODULE, Turn.FORWARD, "result of a method of"
    BASIS = kinds.BASIS, Subject.TAP, Blame.CALLER, Turn.FORWARD, "basis of tap"
    TAP = kinds.TAP, Subject.TAP, Blame.CALLER, Turn.FORWARD, "tap"
    LOSS = kinds.LOSS, Subject.TERM, Blame.NAME, Turn.FORWARD, "loss term", "losses"
    UPDATE = kinds.UPDATE, Subject.OPTIMIZER, Blame.NAME, Turn.SETTINGS, "setting of", "settings"
    SETTING = kinds.SETTING, Subject.PARAMETER, Blame.NAME, Turn.SETTINGS, "setting of", "settings"
    OUT_GRAD = kinds.OUT_GRAD, Subject.MODULE, Blame.CALLER, Turn.BACKWARD, "gradient of an output of", "gradient flow"
    IN_GRAD = kinds.IN_GRAD, Subject.MODULE, Blame.MODULE, Turn.BACKWARD, "gradient of an input of", "gradient flow"
    GRAD = kinds.GRAD, Subject.PARAMETER, Blame.NAME, Turn.BACKWARD, "gradient", "gradients"
    CLIP = kinds.CLIP, Subject.OPTIMIZER, Blame.NAME, Turn.CLIPPING, "clipping of", "clip norm"
    OPTIM_STATE = (
        kinds.OPTIM_STATE, Subject.PARAMETER, Blame.NAME, Turn.AFTERWARDS, "optimizer's state of", "optimizer state",
    )  # fmt: skip
    STATE = kinds.STATE, Subject.PARAMETER, Blame.NAME, Turn.AFTERWARDS, "state of", "state afterwards"


#: Of module calls: what goes in and comes out, each with the gradient that flows there.
INPUTS, OUTPUTS = (Kind.MODULE_IN, Kind.IN_GRAD), (Kind.MODULE_OUT, Kind.OUT_GRAD)
#: Gradients that flow between modules.
FLOW = frozenset((Kind.IN_GRAD, Kind.OUT_GRAD))
#: All that backward makes.
GRADIENTS = frozenset(kind for kind in Kind if kind.turn is Turn.BACKWARD)
OF_METHODS = frozenset((Kind.METHOD_IN, Kind.METHOD_OUT))
OF_MODULES = frozenset(kind for kind in Kind if kind.subject is Subject.MODULE)
OF_PARAMETERS = frozenset(kind for kind in Kind if kind.subject is Subject.PARAMETER)
#: A decision or draw, and what it rests on.
OF_TAPS = frozenset(kind for kind in Kind if kind.subject is Subject.TAP)
#: What a step of a training is made with.
OF_OPTIMIZERS = frozenset((Kind.UPDATE, Kind.SETTING, Kind.CLIP))
#: What a model computes; weights, inputs and what is left unchanged prove nothing.
COMPUTED = frozenset((Kind.MODULE_OUT, Kind.LOSS, Kind.GRAD, Kind.INIT))
