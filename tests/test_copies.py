"""A copy of a network is one: it computes with its own weights and leaves the original alone, or it is refused."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from material import domain, fingerprint, norm_net, plain_net, randomise
from torch import Tensor, fx, nn
from torch.nn.utils import parametrizations, prune

import dgprune_lab as dg
from dgprune_lab.pruning import prove_copies
from dgprune_lab.training.loop import train
from dgprune_lab.training.options import TrainingOptions

IMAGES = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    """A convolution with BatchNorm, `body`, and a linear layer; `body` is what the cases change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)
        self.inner: Any = None
        self.prepare()

    def prepare(self) -> None:
        pass

    def body(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.relu(self.norm(self.conv(x)))).mean((2, 3)))


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())


class PlainList(Base):
    def prepare(self) -> None:
        self.layers = [block()]

    def body(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


class PlainTuple(PlainList):
    def prepare(self) -> None:
        self.layers = (block(),)  # type: ignore[assignment]


class PlainDict(Base):
    def prepare(self) -> None:
        self.by_name = {"inner": {"deeper": block()}}

    def body(self, x: Tensor) -> Tensor:
        return self.by_name["inner"]["deeper"](x)


class ListOfRegistered(Base):
    def prepare(self) -> None:
        self.inner = block()
        self.order = [self.inner]

    def body(self, x: Tensor) -> Tensor:
        return self.order[0](x)


class StatisticsInAList(Base):
    """Nothing here is a parameter: only running statistics are held in the list."""

    def prepare(self) -> None:
        self.layers = [nn.BatchNorm2d(6, affine=False)]

    def body(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


class Lambda(Base):
    def prepare(self) -> None:
        self.inner = block()
        self.call = lambda x: self.inner(x)

    def body(self, x: Tensor) -> Tensor:
        return self.call(x)


class Fused(Base):
    def prepare(self) -> None:
        self.forward = self.fused

    def fused(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


class Partial(Base):
    def prepare(self) -> None:
        self.inner = block()
        self.call = functools.partial(apply, self.inner)

    def body(self, x: Tensor) -> Tensor:
        return self.call(x)


class Holder:
    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __repr__(self) -> str:
        return f"Holder({self.layer})"


class InAnObject(Base):
    def prepare(self) -> None:
        self.keeper = Holder(block())

    def body(self, x: Tensor) -> Tensor:
        return self.keeper.layer(x)


class Unregistered(Base):
    def prepare(self) -> None:
        self.__dict__["hidden"] = block()

    def body(self, x: Tensor) -> Tensor:
        return self.hidden(x)  # type: ignore[operator]


GLOBAL = block()


class Global(Base):
    def body(self, x: Tensor) -> Tensor:
        return GLOBAL(x)


class Counter(Base):
    """Counts its passes in a tensor of an object."""

    def prepare(self) -> None:
        self.passes = Holder(torch.zeros(()))

    def body(self, x: Tensor) -> Tensor:
        self.passes.layer += 1
        return x


class OwnWeight(Base):
    """Changes a weight of its own in every pass."""

    def body(self, x: Tensor) -> Tensor:
        self.head.weight.data.mul_(0.5)
        return x


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)


def closure() -> nn.Module:
    layer = block()

    class Closure(Base):
        def body(self, x: Tensor) -> Tensor:
            return layer(x)

    return Closure()


def method_type() -> nn.Module:
    net = Base()
    net.forward = types.MethodType(Fused.fused, net)
    return net


def compiled() -> nn.Module:
    net = norm_net()
    net.compile(backend="eager")
    return net


def compiled_forward() -> nn.Module:
    net = Base()
    net.forward = torch.compile(net.forward, backend="eager")  # type: ignore[method-assign]
    return net


def inner_compiled() -> nn.Module:
    net = norm_net()
    net[0].compile(backend="eager")
    return net


def wrapped_inside() -> nn.Module:
    net = norm_net()
    net[0] = torch.compile(net[0], backend="eager")  # type: ignore[assignment]
    return net


def scripted_inside() -> nn.Module:
    net = norm_net()
    net[1] = torch.jit.script(net[1])
    return net


def hook_of_the_original() -> nn.Module:
    net = Base()
    net.norm.register_forward_hook(lambda _module, _inputs, output: output * net.head.weight.mean())  # type: ignore[operator]
    return net


def pruned_by_torch() -> nn.Module:
    net = norm_net()
    prune.ln_structured(net[0], "weight", amount=0.5, n=2, dim=0)
    return net


def old_norm(make: Callable[[nn.Module], Any]) -> nn.Module:
    net = norm_net()
    make(net[0])
    return net


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return norm_net()


HELD: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "plain list": (PlainList, r"'layers' of the network is a plain list.*ModuleList"),
    "tuple": (PlainTuple, r"'layers' of the network is a plain tuple.*ModuleList"),
    "dict": (PlainDict, r"'by_name' of the network is a plain dict.*ModuleDict"),
    "list of registered layers": (ListOfRegistered, r"'order' of the network is a plain list.*ModuleList"),
    "statistics in a list": (StatisticsInAList, r"'layers' of the network is a plain list"),
    "lambda": (Lambda, r"'call' of the network is a function.*Make it a method"),
    "self.forward = self.fused": (Fused, r"'forward' of the network is a bound method of Fused"),
    "MethodType": (method_type, r"'forward' of the network is a bound method of Base"),
    "partial": (Partial, r"'call' of the network is a functools.partial"),
    "an object": (InAnObject, r"'keeper' of the network is a Holder.*torch\.nn\.Module"),
    "unregistered": (Unregistered, r"'hidden' of the network is a layer that is not registered"),
    "global": (Global, r"body of Global uses layers or tensors of its surroundings"),
    "closure": (closure, r"body of Closure uses layers or tensors of its surroundings"),
    "counter": (Counter, r"change the original.*'passes' of the network is a Holder"),
    "compiled": (compiled, r"the network was compiled in place.*copy\.deepcopy"),
    "a compiled forward": (compiled_forward, r"'forward' of the network is a function"),
    "a compiled layer": (inner_compiled, r"layer '0' was compiled in place"),
    "torch.compile inside": (wrapped_inside, r"layer '0' is wrapped in OptimizedModule.*model\.0\._orig_mod"),
    "torch.jit.script inside": (scripted_inside, r"layer '1' is TorchScript"),
    "hook": (hook_of_the_original, r"hooks on this network change its output"),
    "torch.nn.utils.prune": (pruned_by_torch, r"layer '0'.*torch\.nn\.utils\.prune\.remove\(model\.0, 'weight'\)"),
    "weight_norm": (lambda: old_norm(nn.utils.weight_norm), r"layer '0'.*remove_weight_norm\(model\.0, 'weight'\)"),
    "spectral_norm": (lambda: old_norm(nn.utils.spectral_norm), r"layer '0'.*remove_spectral_norm"),
    "lazy": (lazy, r"0\.weight has no size yet.*model\(images\)"),
    "meta": (on_meta, r"0\.weight is on the meta device.*to_empty"),
}
PATHS: dict[str, Callable[[nn.Module], Any]] = {
    "measure": lambda net: dg.measure(net, domain("a"), latency=False),
    "evaluate": lambda net: dg.evaluate(net, domain("a")),
    "recalibrate": lambda net: dg.recalibrate(net, [domain("a")]),
    "read_groups": lambda net: dg.read_groups(net, IMAGES),
    "Study": lambda net: dg.Study(net, sources=[domain("a")]),
    "train": lambda net: train(net, sources=[domain("a")], options=TrainingOptions(epochs=1)),
}


def everything(net: nn.Module) -> dict[str, Any]:
    """The fingerprint of a network and of the layers that it only holds on to."""
    hidden = [net]
    for value in [*vars(net).values(), GLOBAL]:
        for part in value if isinstance(value, list | tuple) else [value]:
            hidden += [part] if isinstance(part, nn.Module) else []
    return {"modules": [fingerprint(module) for module in hidden if not lazy_or_meta(module)], "plain": repr(vars(net))}


def lazy_or_meta(net: nn.Module) -> bool:
    return any(p.is_meta or nn.parameter.is_lazy(p) for p in net.parameters())


@pytest.mark.filterwarnings("ignore")  # torch.jit and the old norms are deprecated
@pytest.mark.parametrize("case", HELD)
def test_a_network_of_which_no_copy_can_be_made_is_refused_by_name_and_stays_as_it_is(case: str) -> None:
    make, words = HELD[case]
    net = make()
    assert net.training
    before, random = everything(net), torch.get_rng_state()
    for name, call in PATHS.items():
        with pytest.raises(dg.DgpruneError, match=words):
            call(net)
        assert everything(net) == before and torch.equal(torch.get_rng_state(), random), name


class Harmless(Base):
    """Refers to layers and tensors from many places, none of which its forward pass computes with."""

    def prepare(self) -> None:
        self.listed = [self.conv, self.norm]
        self.__dict__["itself"] = self
        self.describe = lambda: repr(self.conv)
        self.scale = torch.tensor([1.5])
        self.history: list[int] = []
        self.passes = torch.zeros(1)
        self.counts = [{"n": torch.zeros(1)}]
        self.weights = {"conv": self.conv.weight}

    def body(self, x: Tensor) -> Tensor:
        self.history.append(len(x))
        self.last = x
        self.passes += 1
        self.counts[0]["n"] += 1
        x = x * self.weights["conv"].mean()
        steps = torch.tensor([1.0, 2.0])
        steps += 1
        return x * self.scale * steps[0] + torch.zeros(1).add_(1)


class Recurrent(Base):
    def prepare(self) -> None:
        self.inner = nn.GRU(6, 6, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2).transpose(1, 2))[0].transpose(1, 2)[..., None]


class Attention(Base):
    def prepare(self) -> None:
        self.inner = nn.TransformerEncoderLayer(6, 2, dim_feedforward=8, batch_first=True)

    def body(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(2).transpose(1, 2)).transpose(1, 2)[..., None]


def parametrized() -> nn.Module:
    net = Base()
    parametrizations.weight_norm(net.conv)
    return net


def harmless_hook() -> nn.Module:
    net = Base()
    seen: list[int] = []
    net.conv.register_forward_hook(lambda module, _inputs, output: seen.append(len(output)))
    return net


HARMLESS: dict[str, Callable[[], nn.Module]] = {
    "references": Harmless,
    "a GRU": Recurrent,
    "attention": Attention,
    "parametrized": parametrized,
    "hook": harmless_hook,
    "fx graph": lambda: fx.symbolic_trace(norm_net()),
    "ordinary": norm_net,
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_network_of_which_copies_can_be_made_is_evaluated_and_trained_as_it_is(case: str) -> None:
    net, a = HARMLESS[case](), domain("a")
    before = fingerprint(net)
    outcomes, table = dg.evaluate(net, a), dg.measure(net, a, latency=False)
    trained = drain_training(train(net, sources=[a], options=TrainingOptions(epochs=1)))
    assert fingerprint(net) == before
    assert getattr(net, "history", []) == [] and "last" not in vars(net) and not getattr(net, "passes", 0)
    assert not getattr(net, "counts", [{"n": 0}])[0]["n"]
    own = copy.deepcopy(net).eval()
    with torch.no_grad():
        logits = own(a.take(a.rows("report")).images)
    assert torch.equal(outcomes.predicted, logits.argmax(1))
    assert table.set_index("metric").value["loss"] == pytest.approx(F.cross_entropy(logits, a.labels[a.rows("report")]))  # type: ignore[index]
    pairs = zip(trained.parameters(), net.parameters(), strict=True)
    assert not all(torch.equal(after, given) for after, given in pairs)


def drain_training(events: Any) -> nn.Module:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def test_a_hook_that_writes_to_the_network_is_refused_before_it_does() -> None:
    net = Base()
    net.register_buffer("seen", torch.zeros(()))
    net.conv.register_forward_hook(lambda _module, _inputs, output: net.seen.add_(output.mean()) and None)  # type: ignore[operator]
    before = fingerprint(net)
    for name in ("measure", "evaluate", "recalibrate", "read_groups", "Study", "train"):
        with pytest.raises(dg.DgpruneError, match=r"hooks on this network write to its tensors"):
            PATHS[name](net)
    assert fingerprint(net) == before


def test_a_module_of_an_exported_program_is_refused_and_a_traced_one_is_not() -> None:
    model: Any = fx.symbolic_trace(plain_net())
    assert dg.read_groups(model, IMAGES).groups
    model.eval = model.eval  # torch.export puts a method that raises in its place
    with pytest.raises(dg.DgpruneError, match=r"module of an exported program \(torch\.export\).*that was exported"):
        dg.read_groups(model, IMAGES)


def test_layers_without_tensors_may_be_anywhere() -> None:
    class Loose(Base):
        def prepare(self) -> None:
            self.layers = [nn.ReLU(), nn.MaxPool2d(2)]

        def body(self, x: Tensor) -> Tensor:
            return self.layers[1](self.layers[0](x))

    net = Loose()
    mask = dg.Mask.by_hand(dg.read_groups(net, IMAGES), removed={"conv": [0]})
    weights = dg.WeightMask({"conv.weight": torch.ones(6, 3, 3, 3, dtype=torch.bool)}, 0.0)
    for copied in (dg.prune(net, mask), dg.masked(net, mask), dg.masked(net, weights)):
        assert copied(IMAGES).shape == (4, 4)


def test_dropout_that_is_always_active_is_refused() -> None:
    class Always(Base):
        def body(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5)

    with pytest.raises(dg.DgpruneError, match=r"other logits each time.*training=self\.training"):
        dg.evaluate(Always(), domain("a"))


def test_a_network_that_changes_its_own_weights_in_every_pass_is_refused_and_stays_as_it_is() -> None:
    net = OwnWeight()
    before = fingerprint(net)
    for name in ("measure", "evaluate", "read_groups", "Study"):
        with pytest.raises(dg.DgpruneError, match=r"writes to its parameter head\.weight"):
            PATHS[name](net)
    assert fingerprint(net) == before


def test_a_layer_that_only_runs_in_training_is_refused_for_training_alone() -> None:
    class Auxiliary(Base):
        def prepare(self) -> None:
            self.layers = [block()]

        def body(self, x: Tensor) -> Tensor:
            return self.layers[0](x) if self.training else x

    net = Auxiliary()
    dg.evaluate(net, domain("a"))
    before = everything(net)
    with pytest.raises(dg.DgpruneError, match=r"'layers' of the network is a plain list"):
        train(net, sources=[domain("a")], options=TrainingOptions(epochs=1))
    once, options = dg.PruneSchedule({"conv": (1, 1, 1, 0.5)}), TrainingOptions(epochs=1)
    with pytest.raises(dg.DgpruneError, match=r"'layers' of the network is a plain list"):
        dg.train_with_pruning(net, sources=[domain("a")], schedule=once, options=options)
    with pytest.raises(dg.DgpruneError, match=r"'layers' of the network is a plain list"):
        dg.prune_and_tune(dg.Study(net, sources=[domain("a")]), "l1", ratio=0.5, epochs=1)
    assert everything(net) == before and before["modules"][1] == everything(net)["modules"][1]


def test_a_layer_of_another_type_that_is_not_registered_is_named() -> None:
    net = PlainList().double()  # which leaves the layers of the list in single precision
    with pytest.raises(
        dg.DgpruneError, match=r"'layers' of the network is a plain list that holds layers. Use a torch"
    ):
        dg.read_groups(net, torch.rand(2, 3, 8, 8))


def test_a_network_that_ignores_its_parameters_is_refused() -> None:
    class Exported(Base):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    with pytest.raises(dg.DgpruneError, match=r"logits of this network do not depend on its parameters"):
        dg.measure(Exported(), domain("a"), latency=False)


@pytest.mark.parametrize("change", ["compile", "forward", "hook", "function"])
def test_what_is_done_to_a_network_after_its_groups_were_read_is_noticed_by_prune_and_masked(change: str) -> None:
    net = Base()
    graph = dg.read_groups(net, IMAGES)
    if change == "compile":
        net.compile(backend="eager")
    elif change == "forward":
        net.forward = types.MethodType(Fused.fused, net)
    elif change == "hook":
        net.conv.register_forward_hook(lambda _module, _inputs, output: 2 * output)  # type: ignore[operator]
    else:
        net.body = lambda x: net.norm(x)  # type: ignore[method-assign]
    mask = dg.Mask.by_hand(graph, removed={"conv": [0, 3]})
    before = fingerprint(net)
    for function in (dg.prune, dg.masked):
        with pytest.raises(
            dg.DgpruneError, match=r"compiled in place|bound method|hooks on this network|function that"
        ):
            function(net, mask)
    weights = dg.WeightMask({"conv.weight": torch.ones(6, 3, 3, 3, dtype=torch.bool)}, 0.0)
    with pytest.raises(dg.DgpruneError, match=r"compiled in place|refers to layers|has hooks"):
        dg.masked(net, weights)
    assert fingerprint(net) == before


def test_a_hook_is_noticed_whose_effect_a_black_image_would_not_show() -> None:
    net = Base()
    assert net.conv.bias is not None
    torch.nn.init.constant_(net.conv.bias, -0.01)  # on a black image every activation is 0, with the hook and without
    graph = dg.read_groups(net, IMAGES)
    net.conv.register_forward_hook(lambda _module, _inputs, output: 2 * output)  # type: ignore[operator]
    for function in (dg.prune, dg.masked):
        with pytest.raises(dg.DgpruneError, match="hooks on this network"):
            function(net, dg.Mask.by_hand(graph, removed={"conv": [0, 3]}))


def test_a_copy_in_eval_mode_shares_weights_and_no_buffer() -> None:
    class Counting(Base):
        def prepare(self) -> None:
            self.register_buffer("passes", torch.zeros(()))

        def body(self, x: Tensor) -> Tensor:
            self.passes += 1
            return x

    net = Counting()
    before = fingerprint(net)
    dg.measure(net, domain("a"), latency=False)
    study = dg.Study(net, sources=[domain("a")])
    dg.sweep(study, ratios=[0.5], batchnorm="as_is")
    assert fingerprint(net) == before and float(net.passes) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_network_of_another_type_is_cut_in_it_and_measured_after_conversion(dtype: torch.dtype) -> None:
    net = randomise(norm_net(), dtype=dtype)
    pruned = dg.prune(net, dg.Mask.by_hand(dg.read_groups(net, IMAGES), removed={"0": [1]}))
    assert {p.dtype for p in pruned.parameters()} == {dtype}
    for name in ("measure", "evaluate", "recalibrate", "Study", "train"):
        with pytest.raises(dg.DgpruneError, match=rf"{str(dtype)[6:]}, and images are float32: pass .*\.float\(\)"):
            PATHS[name](net)
    assert dg.evaluate(copy.deepcopy(pruned).float(), domain("a")).accuracy >= 0


def test_the_proof_needs_no_more_than_one_image_and_runs_in_the_type_of_the_network() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        net = randomise(norm_net(), dtype=dtype)
        before = fingerprint(net)
        prove_copies(net, IMAGES[:1], training=True)
        assert fingerprint(net) == before and {p.dtype for p in net.parameters()} == {dtype}


TF32: dict[str, Callable[[], Any]] = {
    "default": lambda: None,
    "legacy": lambda: torch.set_float32_matmul_precision("high"),
    "legacy, convolutions": lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
    "new": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "new, convolutions": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "tf32"),  # type: ignore[attr-defined]
}


def settings() -> list[Any]:
    """What decides how float32 is computed on a GPU."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    read: list[Callable[[], Any]] = [
        lambda: cudnn.allow_tf32,
        lambda: cuda.matmul.allow_tf32,
        lambda: (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.benchmark_limit),
        lambda: (torch.backends.fp32_precision, cudnn.conv.fp32_precision, cuda.matmul.fp32_precision),  # type: ignore[attr-defined]
    ]
    values = []
    for one in read:
        try:
            values.append(one())
        except (RuntimeError, AttributeError) as error:  # mixed settings cannot be read; older versions lack some
            values.append(type(error).__name__)
    return values


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of the two ways to set TF32
@pytest.mark.parametrize("setting", TF32)
def test_tf32_makes_no_harmless_network_on_a_gpu_refused_and_stays_as_it_was(setting: str) -> None:
    code = f"""
import torch, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from material import randomise
import dgprune_lab as dg
from dgprune_lab.pruning import folded, prove_copies
from test_copies import TF32, settings
TF32[{setting!r}]()
before = settings()
net = randomise(dg.models.networks.resnet18_32(), dtype=torch.float32).cuda()
images = torch.rand(8, 3, 32, 32, device="cuda")
net[1].register_forward_hook(lambda module, inputs, output: None)
prove_copies(net, images, training=True)
folded(net, images)
for seed in range(12):  # without full_precision 7 of these were refused on an H100
    for build in (dg.models.networks.resnet18_32, dg.models.networks.vgg11_bn_32):
        folded(randomise(build(), dtype=torch.float32, seed=seed).cuda(), images)
net[1].register_forward_hook(lambda module, inputs, output: 1.01 * output)
try:
    prove_copies(net, images)
except dg.DgpruneError as error:
    assert "hooks on this network change its output" in str(error), error
else:
    raise SystemExit("not refused")
assert settings() == before, (before, settings())
print("fine", before)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("fine"), done.stdout + done.stderr


def test_recalibration_refuses_a_network_whose_batchnorm_a_copy_would_share() -> None:
    class Behind(nn.Module):
        """Reaches its BatchNorm through a weak reference, which a copy keeps."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)
            self.seen = weakref.ref(self.norm)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.seen()(self.conv(x)).relu().mean((2, 3)))  # type: ignore[misc]

    model, images = Behind().eval(), torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    splits = {"train": range(40)}
    source = dg.Domain.from_arrays("a", images=images, labels=torch.arange(40) % 5, splits=splits)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(dg.DgpruneError, match=r"original|outside"):
        dg.recalibrate(model, [source])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
