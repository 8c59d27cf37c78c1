"""One network whose single weights are zeroed at one share after the other, without a copy for each."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import CONV, Batch, DgpruneError, Domain, Scope, WeightScores, choice
from ..pruning import device_of, folded, private, rebuild
from .memory_format import layout_of
from .recalibrate import calibration_batches, calibration_images, calibration_steps, has_batchnorm

Norm = Literal["as_is", "fold", "recalibrate"]
WeightScorer = Literal["l1", "random"]
_SIZE = 250
_KEPT_BYTES = 192 * 2**20


def weight_scores(model: nn.Module, *, scorer: WeightScorer = "l1", seed: int = 0) -> WeightScores:
    """One number per single weight of the convolution and linear layers: "l1" is |w|, "random" is drawn in [0, 1).

    Biases and BatchNorm are not among them. Higher = keep.

    Raises:
        DgpruneError: another scorer; a network without such weights, or one that is masked already.

    >>> import torch
    >>> weight_scores(torch.nn.Sequential(torch.nn.Linear(2, 3))).values["0.weight"].shape
    torch.Size([3, 2])
    """
    if scorer not in get_args(WeightScorer):
        known = ", ".join(map(repr, get_args(WeightScorer)))
        raise DgpruneError(
            f"single weights are scored by {known} or by WeightScores of your own; got {scorer!r}. A scorer of filters "
            "goes with granularity='filter'."
        )
    draw = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for name, weight in prunable(model).items():
        drawn = torch.rand(weight.shape, generator=draw) if scorer == "random" else weight.detach().abs()
        values[name] = drawn.to(weight.device)
    return WeightScores(scorer, values, {"seed": seed} if scorer == "random" else {}, {})


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weight tensors of convolution and linear layers by name, a shared one once.

    Raises:
        DgpruneError: there are none, or a layer computes its weight (it is masked already).
    """
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (*CONV, nn.Linear)):
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            raise DgpruneError(
                f"layer {name!r} computes its weight from another tensor, as a masked network does; give the network "
                "as it was before it was masked."
            )
        if not any(weight is other for other in found.values()):
            found[f"{name}.weight" if name else "weight"] = weight
    if not found:
        raise DgpruneError("this network has no weights to prune: no convolution and no linear layer.")
    return found


class WeightMasking:
    """A private twin of a network in which single weights are zeroed, again and again; the argument is never touched.

    Weights have ranks, found once; a share is then one comparison written into tensors that are there already. What
    the twin computes equals `masked(model, allocate(scores, ratio=1 - fraction, scope=scope))` exactly.

    Args:
        model: any network.
        domains: those in the role "source" are what "recalibrate" reads; the first image of one is what "fold" tries.
        scorer: "l1" (of the folded weights where they are folded), "random", or WeightScores.
        scope: "global", the lowest scores anywhere, or "layer", the same share of every tensor.
        batchnorm: "as_is"; "fold": every BatchNorm becomes part of the layer directly before it, before anything is
            zeroed; "recalibrate": statistics are re-estimated on source images after each thinning.
        seed: of "random".

    Attributes:
        weights: how many single weights can go.
        scores: what they are ranked by.

    Raises:
        DgpruneError: unknown choices, no weights, scores of another network, a BatchNorm that cannot be folded.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        domains: Sequence[Domain],
        scorer: WeightScorer | WeightScores = "l1",
        scope: Scope = "global",
        batchnorm: Norm = "as_is",
        seed: int = 0,
    ) -> None:
        choice("batchnorm", batchnorm, Norm)
        choice("scope", scope, Scope)
        first = domains[0]
        self.device = device_of(model)
        self.layout = layout_of(model, first)
        example = first.take(torch.arange(min(8, len(first))), device=self.device, layout=self.layout).images
        base = folded(model, example) if batchnorm == "fold" else private(model)
        self.scores = scorer if isinstance(scorer, WeightScores) else weight_scores(base, scorer=scorer, seed=seed)
        self.full = {name: weight.detach() for name, weight in prunable(base).items() if name in self.scores.values}
        self._check_fits()
        norms = batchnorm == "recalibrate" and has_batchnorm(base)
        self._twin = rebuild(
            base, lambda name, tensor: tensor.clone() if name in self.full or norms else tensor.detach()
        ).requires_grad_(False)
        held = dict(self._twin.named_parameters())
        self._written = {name: held[name].data for name in self.full}
        self._zero = {name: weight.new_zeros(()) for name, weight in self.full.items()}
        self.scope: Scope = scope
        self._ranks = _ranks(self.scores, scope, self.device)
        self.weights = sum(weight.numel() for weight in self.full.values())
        self._calibration = list(calibration_images(self._twin, calibration_batches(domains))) if norms else None
        self._batches: dict[tuple[object, ...], list[Batch]] = {}

    def gone(self, fraction: float) -> int:
        """How many weights are zero when this share is kept: floor((1 - fraction) N + 1e-9), or so per tensor."""
        if self.scope == "global":
            return _floor(fraction, self.weights)
        return sum(_floor(fraction, rank.numel()) for rank in self._ranks.values())

    def zero(self, fraction: float) -> None:
        """Keep this share of the weights, the highest scores, and zero the others."""
        with torch.no_grad():
            for name, removed in self._removed(fraction):
                torch.where(removed, self._zero[name], self.full[name], out=self._written[name])

    def removed_norm(self, fraction: float) -> float:
        """L2 norm of the weights that `zero(fraction)` takes away."""
        squares = [self.full[name].double().square()[removed].sum() for name, removed in self._removed(fraction)]
        return math.sqrt(float(torch.stack(squares).sum()))

    def shift(self, direction: dict[str, Tensor], *, by: float) -> None:
        """Set the weights to those of the full network plus `by` times a direction, a tensor per weight tensor."""
        with torch.no_grad():
            for name, weight in self.full.items():
                torch.add(weight, direction[name], alpha=by, out=self._written[name])

    def direction(self, seed: int, *, unit: bool = False) -> dict[str, Tensor]:
        """Independent standard normal numbers in the shape of the weights; of norm 1 over all of them if `unit`."""
        draw = torch.Generator().manual_seed(seed)
        drawn = {name: torch.randn(weight.shape, generator=draw) for name, weight in self.full.items()}
        size = math.sqrt(sum(float(part.double().square().sum()) for part in drawn.values())) if unit else 1.0
        return {name: (part / size).to(self.device, self.full[name].dtype) for name, part in drawn.items()}

    def outputs(
        self, domains: Sequence[Domain], *, split: str, images: int | None = None
    ) -> Generator[None, None, list[tuple[Tensor, Tensor]]]:
        """(logits, labels) per batch over a part of every domain, in eval mode; yields between batches."""
        if self._calibration is not None:
            yield from calibration_steps(self._twin, self._calibration)
        found = []
        for domain in domains:
            for batch in self._read(domain, split, images):
                assert batch.labels is not None
                with torch.inference_mode():
                    found.append((self._twin(batch.images), batch.labels))
                yield
        return found

    def losses(
        self, domains: Sequence[Domain], *, split: str, images: int | None = None
    ) -> Generator[None, None, Tensor]:
        """(N,) float64 cross-entropy per image over a part of every domain; yields between batches.

        Where the thinned network overflows they are not finite, and are returned so.
        """
        found = yield from self.outputs(domains, split=split, images=images)
        with torch.inference_mode():
            parts = [F.cross_entropy(logits, labels, reduction="none") for logits, labels in found]
        return torch.cat(parts).cpu().double().clone()

    def _read(self, domain: Domain, split: str, images: int | None) -> list[Batch]:
        """The batches of a part; kept while all that is kept stays small, since they are read a hundred times."""
        key = (domain.key, split, images)
        if key in self._batches:
            return self._batches[key]
        found = list(domain.batches(split, size=_SIZE, images=images, device=self.device, layout=self.layout))
        held = sum(batch.images.nbytes for kept in [*self._batches.values(), found] for batch in kept)
        if held <= _KEPT_BYTES:
            self._batches[key] = found
        return found

    def _removed(self, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """Per weight tensor, which of its weights go."""
        for name, rank in self._ranks.items():
            yield name, rank < _floor(fraction, self.weights if self.scope == "global" else rank.numel())

    def _check_fits(self) -> None:
        for name, value in self.scores.values.items():
            got = tuple(self.full[name].shape) if name in self.full else "no such weight"
            if got != tuple(value.shape):
                raise DgpruneError(
                    f"the scores were made for another network: {name} should have shape {tuple(value.shape)}, "
                    f"got {got}."
                )
            if not torch.isfinite(value).all():
                raise DgpruneError(f"the scores of {name} hold NaN or infinite numbers; ranks need finite ones.")


def _floor(fraction: float, size: int) -> int:
    """As `allocate` counts what leaves at the ratio 1 - fraction."""
    return math.floor((1 - fraction) * size + 1e-9)


def _ranks(scores: WeightScores, scope: Scope, device: torch.device) -> dict[str, Tensor]:
    """Place of every weight among those that leave, first = 0, by a stable sort: of all, or of its own tensor."""
    values = scores.values
    if scope == "layer":
        return {name: _places(value.flatten()).view(value.shape).to(device) for name, value in values.items()}
    places = _places(torch.cat([value.flatten() for value in values.values()]))
    parts = places.split([value.numel() for value in values.values()])
    return {name: part.view(value.shape).to(device) for (name, value), part in zip(values.items(), parts, strict=True)}


def _places(flat: Tensor) -> Tensor:
    places = torch.empty(len(flat), dtype=torch.int32, device=flat.device)
    places[flat.argsort(stable=True)] = torch.arange(len(flat), dtype=torch.int32, device=flat.device)
    return places
