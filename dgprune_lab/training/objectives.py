"""The loss that a training step minimises: the mean risk of the sources, or an objective of domain generalisation.

E sources; R_e is the mean cross-entropy over the images of source e in the step, equally many for each source. One
forward pass of all sources together serves every objective, so BatchNorm sees them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import DgpruneError, note, provenance_of
from ..pruning import deep_copy
from .block_outputs import layers_that_run, watch_outputs
from .options import TrainingOptions
from .pool import Pool

_EPSILON, _START = 1e-5, 0.1  # MIRO's variance encoder: added to every variance, and the variance at the start


def group_dro(risks: Tensor, *, q: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Return sum_e q_e R_e with the new weights q_e <- q_e exp(eta R_e), normalised to sum to 1; and these weights.

    Source: Sagawa, Koh, Hashimoto, Liang 2020, ICLR, arXiv:1911.08731, algorithm 1, as DomainBed implements it.
    """
    q = (q.log() + eta * risks.detach()).softmax(0)
    return (q * risks).sum(), q


def vrex(risks: Tensor, *, weight: float) -> Tensor:
    """Return mean_e R_e + weight mean_e (R_e - mean R)^2: the population variance, with equal weights for all sources.

    Source: Krueger et al. 2021, ICML, arXiv:2003.00688, equation 8.
    """
    return risks.mean() + weight * (risks - risks.mean()).square().mean()


def coral(features: Tensor) -> Tensor:
    """Return the mean over pairs of sources of mean (mu_i - mu_j)^2 + mean (C_i - C_j)^2 of their features.

    The first mean is over features, the second over the entries of the covariance matrices, which divide by n - 1.

    Args:
        features: (E, n, features) of n images of each source.

    Source: Sun, Saenko 2016, arXiv:1607.01719, equation 1, which has covariances only; the means and the scaling are
    those of DomainBed (Gulrajani, Lopez-Paz 2021, arXiv:2007.01434).
    """
    means = features.mean(1)
    centred = features - means[:, None]
    covariances = centred.mT @ centred / (features.shape[1] - 1)
    terms = [
        (means[i] - means[j]).square().mean() + (covariances[i] - covariances[j]).square().mean()
        for i, j in combinations(range(len(features)), 2)
    ]
    return torch.stack(terms).mean()


def miro(z: Tensor, oracle: Tensor, *, b: Tensor) -> Tensor:
    """Return mean [(z - z0)^2 / var + log var] / 2 over all entries, with var = softplus(b) + 1e-5 per channel.

    A bound, up to sign and constant, on the mutual information of z and the oracle's output z0 on the same images, if
    the mean encoder is the identity.

    Args:
        z, oracle: (N, C, ...) outputs of one block of the network in training and of the oracle.
        b: (C,) parameters of the variance encoder.

    Source: Cha, Lee, Park, Chun 2022, ECCV, arXiv:2203.10789, equation 4. In the authors' code each entry of a map may
    have a variance of its own; here each channel has one.
    """
    variance = (F.softplus(b) + _EPSILON).view(1, -1, *[1] * (z.ndim - 2))
    return ((z - oracle).square() / variance + variance.log()).mean() / 2


class Erm:
    """The mean risk; the base of the other objectives, which hold the state that their function needs between steps.

    Attributes:
        needs: number of sources that it needs.
        paper: the weight that the paper uses.
        renewing: whether the optimiser's state must be reset at this step.
        state: tensors that the next step needs; those that require gradients are learnt with the network.
    """

    needs = 1
    paper = 0.0

    def __init__(self, model: nn.Module, *, pool: Pool, options: TrainingOptions) -> None:
        self.sources = len(pool.sources)
        self.weight = self.paper if options.weight is None else options.weight
        self.renewing = False
        self.state: dict[str, Tensor] = {}

    @contextmanager
    def watching(self, model: nn.Module, x: Tensor) -> Iterator[None]:
        """Within the block, where the network runs on a step's images, keep what `loss` needs from its layers."""
        yield

    def loss(self, risks: Tensor) -> Tensor:
        """Return the loss of a step from the risks (E,); call it once per step."""
        return risks.mean()

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters learnt besides the network's, at ten times its learning rate."""
        return [tensor for tensor in self.state.values() if isinstance(tensor, nn.Parameter)]

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Set the state to one that was saved."""
        with torch.no_grad():
            for name, tensor in state.items():
                self.state[name].copy_(tensor)


class GroupDro(Erm):
    """Sources with a high risk gain weight, step by step; see `group_dro`. `weight` is eta; every q_e begins at 1/E."""

    needs = 2
    paper = 0.01

    def __init__(self, model: nn.Module, *, pool: Pool, options: TrainingOptions) -> None:
        super().__init__(model, pool=pool, options=options)
        self.state["q"] = torch.full((self.sources,), 1 / self.sources, device=next(model.parameters()).device)

    def loss(self, risks: Tensor) -> Tensor:
        loss, q = group_dro(risks, q=self.state["q"].to(risks), eta=self.weight)
        self.state["q"] = q
        return loss


class Vrex(Erm):
    """The variance of the risks is added; see `vrex`. The first `annealing` steps have weight 1, as in DomainBed."""

    needs = 2
    paper = 10.0

    def __init__(self, model: nn.Module, *, pool: Pool, options: TrainingOptions) -> None:
        super().__init__(model, pool=pool, options=options)
        self.annealing = options.annealing
        self.state["steps"] = torch.tensor(0)
        steps = options.epochs * pool.steps(options)
        if steps <= self.annealing and self.weight != 1:
            note(
                f"V-REx: {steps} steps of training are not more than annealing={self.annealing}, so the weight stays 1 "
                f"and never becomes {self.weight:g}; set a smaller annealing."
            )

    def loss(self, risks: Tensor) -> Tensor:
        done = int(self.state["steps"])
        self.renewing = done == self.annealing > 0
        self.state["steps"] += 1
        return vrex(risks, weight=self.weight if done >= self.annealing else 1.0)


class Coral(Erm):
    """The difference between the sources' features is added; see `coral`. Features: the last linear layer's input."""

    needs = 2
    paper = 1.0

    def __init__(self, model: nn.Module, *, pool: Pool, options: TrainingOptions) -> None:
        super().__init__(model, pool=pool, options=options)
        self.features = torch.empty(0)
        self.classifier, _ = layers_that_run(model, pool)
        if not isinstance(layer := model.get_submodule(self.classifier), nn.Linear):
            raise DgpruneError(
                'objective="coral" compares the features before the classifier, the input of the last linear layer; '
                f"the last layer of this network, {self.classifier!r}, is a {type(layer).__name__}. Add a linear "
                "layer, or use another objective."
            )

    @contextmanager
    def watching(self, model: nn.Module, x: Tensor) -> Iterator[None]:
        def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.features = inputs[0]

        with model.get_submodule(self.classifier).register_forward_pre_hook(keep):
            yield

    def loss(self, risks: Tensor) -> Tensor:
        features, self.features = self.features, torch.empty(0)  # the graph is not kept beyond the step
        return risks.mean() + self.weight * coral(features.reshape(self.sources, len(features) // self.sources, -1))


class Miro(Erm):
    """The distance of block outputs from those of the pretrained network is added; see `miro`, whose terms are summed.

    The oracle is the network as given, before the first step, frozen and in eval mode: its provenance is part of the
    trained network's. In fine-tuning after pruning, it is the network right after the removal, whose widths are the
    same; that is not the pretrained network of the paper. Blocks: see `blocks_of`.

    The authors keep the BatchNorm layers of their ResNet-50 frozen; here they train as with every objective, so in the
    first step the outputs of the two networks already differ by the statistics of the batch.
    """

    paper = 0.1

    def __init__(self, model: nn.Module, *, pool: Pool, options: TrainingOptions) -> None:
        super().__init__(model, pool=pool, options=options)
        _check_pretrained(model)
        last, outputs = layers_that_run(model, pool)
        for name in [*outputs]:
            if last == name or last.startswith(f"{name}."):
                del outputs[name]
        if not outputs:
            raise DgpruneError(
                'objective="miro" compares the outputs of blocks with convolutions, and this network has none before '
                "its classifier; use another objective."
            )
        start = torch.tensor(_START - _EPSILON).expm1().log()
        self.state = {name: nn.Parameter(start.to(y).repeat(y.shape[1])) for name, y in outputs.items()}
        self.oracle = deep_copy(model).eval().requires_grad_(False)
        self.terms: dict[str, Tensor] = {}

    @contextmanager
    def watching(self, model: nn.Module, x: Tensor) -> Iterator[None]:
        z0: dict[str, Tensor] = {}
        with torch.no_grad(), watch_outputs(self.oracle, self.state, lambda name, y: z0.update({name: y.clone()})):
            self.oracle(x)

        def compare(name: str, z: Tensor) -> None:  # at once, before an in-place layer overwrites it
            self.terms[name] = miro(z, z0[name], b=self.state[name])

        with watch_outputs(model, self.state, compare):
            yield

    def loss(self, risks: Tensor) -> Tensor:
        terms, self.terms = self.terms, {}
        return risks.mean() + self.weight * torch.stack([*terms.values()]).sum()


OBJECTIVES: Mapping[str, type[Erm]] = {"erm": Erm, "group_dro": GroupDro, "vrex": Vrex, "coral": Coral, "miro": Miro}
"""Every name that `TrainingOptions.objective` takes."""


def check_objective(options: TrainingOptions, *, sources: int) -> None:
    """Refuse an objective for which there are too few sources, or too few images of each in a step."""
    if sources < OBJECTIVES[options.objective].needs:
        raise DgpruneError(
            f'objective="{options.objective}" compares sources, so it needs at least two; got {sources}. Add a source, '
            'or use objective="erm".'
        )
    if options.equal_batches and options.batch_size < 2 * sources:
        raise DgpruneError(
            f"each step needs at least two images of each source, and batch_size={options.batch_size} gives "
            f"{options.batch_size // sources} of each of {sources} sources; set batch_size to {2 * sources} or more."
        )


def _check_pretrained(model: nn.Module) -> None:
    provenance = provenance_of(model)
    if provenance.training is None:
        note(
            "MIRO: the record of this network does not say what it was trained on; it is taken to be pretrained, and "
            "its features are the reference. For a network with initial weights that would be wrong."
        )
    elif not provenance.training and not provenance.finetuning:
        raise DgpruneError(
            'objective="miro" keeps the features near those of a pretrained network, and this one is fresh: its record '
            "says that no data have trained it. Train it first, or load pretrained weights with dg.load_weights."
        )
