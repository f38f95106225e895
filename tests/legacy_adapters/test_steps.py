"""Steps of a training are recorded as they are taken, freely or each from another side's state."""

import pytest
import torch
from torch import nn

from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from legacy_adapters.training.phases import phase_of, step_of
from legacy_adapters.training.settings import options_of
from legacy_adapters.training.states import RecordedStates
from legacy_adapters.training.steps import Plan, StepLoop, Training, kind_of
from parity.traces.trace import Trace

COVERAGE = dict(leaf_calls=[], never_executed=[], without_gradient=[], classes={})


@pytest.mark.parametrize("step", [1, 7, 120])
def test_phase_names_its_step(step):
    assert step_of(phase_of(step)) == step


@pytest.mark.parametrize("phase", ["train", "predict", "weights", "", "step", "step x", "steps 1", "a step 1"])
def test_other_phases_are_no_steps(phase):
    assert step_of(phase) is None


class Net(nn.Module):
    """Like a legacy detector: a frozen layer, a counter, and an attribute set in training that saves a branch twice."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.base = nn.Linear(3, 3)
        self.branches = nn.ModuleList([nn.Linear(3, 1)])
        self.unused = nn.Linear(3, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.base.duplicates = self.branches
        self.seen += 1
        return self.branches[0](self.base(self.frozen(x)).relu())


class Toy(Training):
    """AdamW with another learning rate for the branches, clipping, and a rate that doubles with every step."""

    def __init__(self, net, max_norm=0.5):
        groups = [dict(params=list(net.frozen.parameters()) + list(net.base.parameters()), lr=1e-2)]
        groups.append(dict(params=list(net.branches.parameters()) + list(net.unused.parameters()), lr=1e-3))
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        self.clip, self.max_norm, self.epochs = torch.nn.utils.clip_grad_norm_, max_norm, []

    def watch(self, backward_done, clip):
        self.backward_done, self.clip = backward_done, clip(self.clip)

    def update(self, total):
        total.backward()
        self.backward_done()
        params = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.clip(params, self.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def advance(self, epoch_ended):
        self.epochs.append(epoch_ended)
        for group in self.optimizer.param_groups:
            group["lr"] *= 2


def inputs(step):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


def trained(folder, plan, make=Toy, before=lambda net: None, seed=0):
    """Train a net by ``plan``; return the trace, the net and its training."""
    torch.manual_seed(seed)
    net = Net()
    recorder = Recorder(TraceWriter(str(folder)))
    recorder.attach(net)
    training = make(net)
    loop = StepLoop(training, net, recorder, plan)
    before(net)

    def losses(step):
        total = net(inputs(step)).square().sum()
        return {"square": total}, total

    loop.run(losses)
    recorder.writer.finish(loop.provenance(), dict(recorder.coverage(), without_gradient=[]))
    return Trace.load(folder), net, training


def by_name(trace, step, kind, slot=""):
    return {r.name: trace.tensor(r) for r in trace.records if (r.phase, r.kind, r.slot) == (phase_of(step), kind, slot)}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_step_is_what_the_same_code_does_without_being_watched(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(3))
    torch.manual_seed(0)
    net = Net()
    toy = Toy(net)
    toy.backward_done = lambda: None
    names = {name: id(param) for name, param in net.named_parameters()}
    for step in (1, 2, 3):
        toy.update(net(inputs(step)).square().sum())
        toy.advance(False)
        after = {name: value for name, value in net.state_dict().items() if "duplicates" not in name}
        assert same(by_name(trace, step, "state"), after)
        averages = {id(param): state["exp_avg"] for param, state in toy.optimizer.state.items()}
        found = by_name(trace, step, "optim_state", "exp_avg")
        assert len(found) == 4 and all(torch.equal(average, averages[names[name]]) for name, average in found.items())


def test_records_of_a_step_and_their_order(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(2))
    kinds = [record.kind for record in trace.records if record.phase == "step 2"]
    assert list(dict.fromkeys(kinds)) == ["loss", "update", "setting", "grad", "clip", "optim_state", "state", "random"]
    assert {record.phase for record in trace.records} == {"step 1", "step 2"}
    assert by_name(trace, 2, "loss").keys() == {"square", "total"}


def test_gradients_come_in_the_order_in_which_backward_reaches_them(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(1))
    modules = [name.rpartition(".")[0] for name in by_name(trace, 1, "grad")]
    assert modules == ["branches.0", "branches.0", "base", "base"]


def test_gradients_are_those_before_clipping_and_the_norm_is_theirs(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(1))
    total = torch.stack([gradient.norm() for gradient in by_name(trace, 1, "grad").values()]).norm()
    assert total > 0.5
    assert torch.allclose(by_name(trace, 1, "clip", "total_norm")["gradients"], total)
    assert by_name(trace, 1, "clip", "max_norm")["gradients"].item() == 0.5
    assert by_name(trace, 1, "clip", "norm_type")["gradients"].item() == 2.0


def test_settings_are_those_of_the_step_in_double_precision(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(3))
    for step, factor in ((1, 1), (2, 2), (3, 4)):
        rates = by_name(trace, step, "setting", "lr")
        assert rates["base.weight"].dtype == torch.float64
        assert (rates["base.weight"].item(), rates["branches.0.bias"].item()) == (1e-2 * factor, 1e-3 * factor)
    assert by_name(trace, 1, "setting", "betas")["base.bias"].tolist() == [0.9, 0.999]
    assert by_name(trace, 1, "setting", "weight_decay")["unused.bias"].item() == 0.1


def test_frozen_parameters_in_groups_have_no_settings_but_are_counted(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(1))
    assert not any(name.startswith("frozen") for name in by_name(trace, 1, "setting", "lr"))
    assert {"frozen.weight", "frozen.bias", "seen"} <= by_name(trace, 1, "state").keys()
    assert trace.provenance["frozen_in_groups"] == 2 and trace.provenance["optimizer_groups"] == 2
    assert trace.provenance["optimizer"] == "AdamW"


def test_names_of_the_start_count_and_not_what_training_adds(tmp_path):
    trace, net, _ = trained(tmp_path / "t", Plan(2))
    assert any("duplicates" in name for name in net.state_dict())
    assert not any("duplicates" in record.name for record in trace.records)


def test_module_calls_are_counted_and_not_recorded(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(2))
    assert not any(record.kind.startswith("module") for record in trace.records)
    counts = {(c["phase"], c["name"]): c["count"] for c in trace.coverage["leaf_calls"]}
    assert counts["step 1", "base"] == counts["step 2", "branches.0"] == 1
    assert trace.coverage["never_executed"] == ["unused"]


def test_weights_and_gradients_of_what_ran_before_are_put_back(tmp_path):
    def disturbed(net):
        net(inputs(9)).sum().backward()
        with torch.no_grad():
            net.base.weight.add_(1.0)

    clean, _, _ = trained(tmp_path / "a", Plan(2))
    again, _, _ = trained(tmp_path / "b", Plan(2), before=disturbed)
    assert [record.key for record in again.records] == [record.key for record in clean.records]
    assert [record.digest for record in again.records] == [record.digest for record in clean.records]


@pytest.mark.parametrize(
    ("length", "ends"), [(None, [False] * 5), (1, [True] * 5), (2, [False, True, False, True, False])], ids=str
)
def test_epoch_ends_after_its_length(tmp_path, length, ends):
    _, _, training = trained(tmp_path / "t", Plan(5, epoch_length=length))
    assert training.epochs == ends


def test_clip_order_changes_the_order_of_the_norms_and_nothing_else(tmp_path):
    orders = []

    class Spied(Toy):
        def __init__(self, net):
            super().__init__(net)
            names = {id(param): name for name, param in net.named_parameters()}
            clip = self.clip

            def spy(parameters, max_norm, norm_type=2.0):
                orders.append([names[id(param)] for param in parameters])
                return clip(parameters, max_norm, norm_type)

            self.clip = spy

    own = ["base.weight", "base.bias", "branches.0.weight", "branches.0.bias"]
    trained(tmp_path / "own", Plan(1), make=Spied)
    twin = ("branches.0.bias", "not.here", "base.weight")
    trained(tmp_path / "twin", Plan(1, clip_names=twin), make=Spied)
    assert orders == [own, ["branches.0.bias", "base.weight", "base.bias", "branches.0.weight"]]


def test_optimizer_with_a_foreign_parameter_is_refused(tmp_path):
    def foreign(net):
        toy = Toy(net)
        toy.optimizer.add_param_group(dict(params=[nn.Parameter(torch.zeros(1))]))
        return toy

    with pytest.raises(ValueError, match="none of the model's"):
        trained(tmp_path / "t", Plan(1), make=foreign)


def test_forced_steps_start_from_the_recorded_state_and_keep_the_own_counter(tmp_path):
    """Another net, forced to the states of the first, takes every step but the first one as that does."""
    recorded, _, _ = trained(tmp_path / "a", Plan(3))
    states = RecordedStates(str(tmp_path / "a"), {})
    free, _, _ = trained(tmp_path / "free", Plan(3), seed=1)
    forced, _, _ = trained(tmp_path / "forced", Plan(3, states=states), seed=1)
    assert forced.provenance["forced"] and not free.provenance["forced"]
    assert same(by_name(forced, 1, "state"), by_name(free, 1, "state"))
    for step in (2, 3):
        for kind, slot in (("loss", ""), ("grad", ""), ("optim_state", "exp_avg_sq"), ("state", "")):
            assert same(by_name(forced, step, kind, slot), by_name(recorded, step, kind, slot)), (step, kind)
            assert not same(by_name(free, step, kind, slot), by_name(recorded, step, kind, slot)), (step, kind)
    assert {int(count) for count in by_name(forced, 3, "optim_state", "step").values()} == {3}


def test_forced_counter_that_went_wrong_stays_wrong(tmp_path):
    trained(tmp_path / "a", Plan(3))

    class Ahead(Toy):
        def advance(self, epoch_ended):
            super().advance(epoch_ended)
            if len(self.epochs) == 1:
                for state in self.optimizer.state.values():
                    state["step"] += 5

    states = RecordedStates(str(tmp_path / "a"), {})
    forced, _, _ = trained(tmp_path / "forced", Plan(3, states=states), make=Ahead)
    assert {int(count) for count in by_name(forced, 3, "optim_state", "step").values()} == {8}


def test_what_changes_a_state_between_steps_is_recorded_before_the_next_is_forced(tmp_path):
    recorded, _, _ = trained(tmp_path / "a", Plan(2))

    class Nudged(Toy):
        def __init__(self, net):
            super().__init__(net)
            self.net = net

        def advance(self, epoch_ended):
            super().advance(epoch_ended)
            self.net.base.bias.data.add_(1.0)

    states = RecordedStates(str(tmp_path / "a"), {})
    forced, _, _ = trained(tmp_path / "forced", Plan(2, states=states), make=Nudged)
    for step in (1, 2):
        gap = by_name(forced, step, "state")["base.bias"] - by_name(recorded, step, "state")["base.bias"]
        assert torch.allclose(gap, torch.ones(3))


def test_states_are_found_under_this_sides_names(tmp_path):
    trained(tmp_path / "a", Plan(1))
    renamed = RecordedStates(str(tmp_path / "a"), {"ours.weight": "base.weight"})
    names = {name for _, name, _, _ in renamed.after("step 1")}
    assert "ours.weight" in names and "base.weight" not in names and "base.bias" in names
    assert list(renamed.after("step 2")) == []


def test_forced_states_are_perturbed_by_a_last_place(tmp_path):
    recorded, _, _ = trained(tmp_path / "a", Plan(2))
    states = RecordedStates(str(tmp_path / "a"), {})
    shaken, _, _ = trained(tmp_path / "b", Plan(2, states=states, perturb=1))
    one, two = by_name(recorded, 2, "loss")["total"], by_name(shaken, 2, "loss")["total"]
    assert one != two and torch.allclose(one, two, rtol=1e-5)
    assert same(by_name(recorded, 1, "loss"), by_name(shaken, 1, "loss"))


class Saved(Toy):
    """A toy that writes and reads checkpoints; its learning rates are in the optimizer's groups."""

    def __init__(self, net):
        super().__init__(net)
        self.net = net

    def save(self, path, step):
        torch.save(dict(step=step, net=self.net.state_dict(), optimizer=self.optimizer.state_dict()), path)

    def resume(self, path, step):
        saved = torch.load(path)
        assert saved["step"] == step
        self.net.load_state_dict({name: saved["net"][name] for name in self.net.state_dict()})
        self.optimizer.load_state_dict(saved["optimizer"])


def after(trace, step):
    return [(r.kind, r.name, r.slot, r.digest) for r in trace.records if r.phase == phase_of(step)]


def test_resumed_training_takes_the_steps_of_one_that_was_only_stopped(tmp_path):
    file = str(tmp_path / "stopped.pt")
    stopped, _, _ = trained(tmp_path / "a", Plan(4, stop=2, save=file), make=Saved)
    resumed, _, _ = trained(tmp_path / "b", Plan(4, stop=2, resume=file), make=Saved, seed=1)
    never, _, _ = trained(tmp_path / "c", Plan(4), make=Saved)
    assert {record.phase for record in stopped.records} == {"step 2", "step 3", "step 4"}
    for step in (2, 3, 4):
        assert after(resumed, step) == after(stopped, step) != []
    for step in (3, 4):  # nothing here is drawn at random
        assert after(stopped, step) == after(never, step)
    assert (stopped.provenance["resume_at"], stopped.provenance["resumed"]) == (2, False)
    assert (resumed.provenance["resume_at"], resumed.provenance["resumed"]) == (2, True)
    assert never.provenance["resume_at"] == 0


def test_records_of_the_stop_are_what_the_next_step_starts_from(tmp_path):
    trace, _, _ = trained(tmp_path / "t", Plan(3, stop=2, save=str(tmp_path / "f.pt")), make=Saved)
    kinds = {record.kind for record in trace.records if record.phase == "step 2"}
    assert kinds == {"update", "setting", "optim_state", "state"}
    assert same(by_name(trace, 2, "setting", "lr"), by_name(trace, 3, "setting", "lr"))
    counts = {c["phase"] for c in trace.coverage["leaf_calls"]}
    assert counts == {"step 3"}


def test_random_draws_after_a_stop_do_not_depend_on_those_before(tmp_path):
    def drawing(before):
        class Drawing(Saved):
            def update(self, total):
                super().update(total * torch.rand(()) if len(self.epochs) == 2 else total)
                torch.rand(before if len(self.epochs) < 2 else 0)

        return Drawing

    def third_step(name, before, **plan):
        plan = Plan(3, stop=2, save=str(tmp_path / "f.pt"), **plan)
        return after(trained(tmp_path / name, plan, make=drawing(before))[0], 3)

    assert third_step("none", 0, seed=5) == third_step("many", 7, seed=5) != third_step("seed", 0, seed=6)


def test_forced_training_starts_from_the_recorded_state_of_the_stop(tmp_path):
    file = str(tmp_path / "stopped.pt")
    recorded, _, _ = trained(tmp_path / "a", Plan(3, stop=1, save=file), make=Saved)

    class Off(Saved):
        def resume(self, path, step):
            super().resume(path, step)
            self.net.base.bias.data.add_(1.0)

    states = RecordedStates(str(tmp_path / "a"), {})
    forced, _, _ = trained(tmp_path / "b", Plan(3, stop=1, resume=file, states=states), make=Off)
    assert not same(by_name(forced, 1, "state"), by_name(recorded, 1, "state"))  # what is wrong is recorded before
    for step in (2, 3):
        assert same(by_name(forced, step, "state"), by_name(recorded, step, "state"))


@pytest.mark.parametrize("plan", [dict(save="f.pt"), dict(resume="f.pt")], ids=str)
def test_training_without_checkpoints_says_so(tmp_path, plan):
    with pytest.raises(NotImplementedError, match="this adapter's training"):
        trained(tmp_path / "t", Plan(2, stop=1, **plan))


class _Same(torch.optim.AdamW):
    """Overrides nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)

    def more(self):
        return None


class _Other(_Same):
    def zero_grad(self, set_to_none=True):
        super().zero_grad(set_to_none)


def test_optimizer_is_of_the_class_whose_methods_it_has():
    parameters = [torch.nn.Parameter(torch.ones(1))]
    made = [kind_of(cls(parameters)) for cls in (torch.optim.AdamW, torch.optim.Adam, _Same, _Other, _Same)]
    assert made == ["AdamW", "Adam", "AdamW", "_Other", "AdamW"]


def test_options_are_recorded_if_they_are_set_and_say_what_is_computed():
    group = dict(params=[1], lr=0.0, amsgrad=False, maximize=True, dampening=0, betas=[0.9, 0.99], foreach=True,
                 fused=True, fancy="yes", nothing=None, objects=[object()])  # fmt: skip
    found = {name: tensor.tolist() for name, tensor in options_of(group).items()}
    assert found == {"lr": 0.0, "maximize": 1.0, "betas": [0.9, 0.99], "fancy": list(b"yes")}
