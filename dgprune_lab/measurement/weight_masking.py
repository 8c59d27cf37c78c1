"""Evaluation of one network at many fractions of zeroed weights, in a single copy."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import CONV, Batch, DgpruneError, Domain, Scope, WeightScores, cache_room, choice, full_precision, yielding
from ..pruning import by_scope, device_of, folded, rebuild, shared_copy
from .batch_size import batch_size, layout_of
from .recalibrate import calibration_chunks, calibration_rows, calibration_steps, has_batchnorm

Norm = Literal["as_is", "fold", "recalibrate"]
WeightScorer = Literal["l1", "random"]
_SHARE = 1 / 10  # of the available memory, for images


def weight_scores(model: nn.Module, *, scorer: WeightScorer = "l1", seed: int = 0) -> WeightScores:
    """Return a score for every weight of the convolution and linear layers: "l1" is |w|, "random" uniform in [0, 1).

    Higher = keep. Biases and BatchNorm are not scored. Raises DgpruneError as `prunable` does, and for unknown scorers.

    >>> import torch
    >>> weight_scores(torch.nn.Sequential(torch.nn.Linear(2, 3))).values["0.weight"].shape
    torch.Size([3, 2])
    """
    if scorer not in get_args(WeightScorer):
        names = ", ".join(map(repr, get_args(WeightScorer)))
        raise DgpruneError(
            f"single weights are scored by {names} or by WeightScores of your own; got {scorer!r}. A scorer of filters "
            "goes with granularity='filter'."
        )
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for name, weight in prunable(model).items():
        scores = torch.rand(weight.shape, generator=generator) if scorer == "random" else weight.detach().abs()
        values[name] = scores.to(weight.device)
    return WeightScores(scorer, values, options={"seed": seed} if scorer == "random" else {}, reads={})


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """Return the weight tensors of convolution and linear layers by name; a shared tensor occurs once.

    Raises:
        DgpruneError: no such layers, or a layer that computes its weight from another tensor (it is masked already).
    """
    weights: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (*CONV, nn.Linear)):
            continue
        weight = module._parameters.get("weight")
        if weight is None:
            raise DgpruneError(
                f"layer {name!r} computes its weight from another tensor, as a masked network does; pass the network "
                "before masking."
            )
        if not any(weight is other for other in weights.values()):
            weights[f"{name}.weight" if name else "weight"] = weight
    if not weights:
        raise DgpruneError("this network has no weights to prune: no convolution and no linear layer.")
    return weights


class WeightMasking:
    """A private copy of a network in which a fraction of the weights is kept and the others are set to zero.

    Weights are ranked once; setting a fraction is then one comparison, written into existing tensors. The copy's output
    equals that of `masked(model, allocate(scores, ratio=1 - fraction, scope=scope))` exactly.

    Args:
        model: any network; it stays unchanged.
        domains: "recalibrate" reads those in the role "source"; "fold" is verified on the first domain's first images.
        scorer: "l1" (of the folded weights, if BatchNorm is folded), "random", or WeightScores.
        scope: "global" zeroes the weights of lowest score in the network, "layer" the same share of every tensor.
        batchnorm: "as_is"; "fold": every BatchNorm is folded into the preceding layer before any weight is zeroed;
            "recalibrate": statistics are re-estimated on source images after each masking.
        seed: random seed of the scorer "random".

    Attributes:
        weights: number of weights that can be zeroed.
        scores: the scores by which the weights are ranked.

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
        base = folded(model, example) if batchnorm == "fold" else shared_copy(model)
        self.scores = scorer if isinstance(scorer, WeightScores) else weight_scores(base, scorer=scorer, seed=seed)
        self.full = {name: weight.detach() for name, weight in prunable(base).items() if name in self.scores.values}
        self._check_scores()
        recalibrated = batchnorm == "recalibrate" and has_batchnorm(base)
        self._twin = rebuild(
            base, lambda name, tensor: tensor.clone() if name in self.full or recalibrated else tensor.detach()
        ).requires_grad_(False)
        parameters = dict(self._twin.named_parameters())
        self._written = {name: parameters[name].data for name in self.full}
        self._zero = {name: weight.new_zeros(()) for name, weight in self.full.items()}
        self.scope: Scope = scope
        self._ranks = _ranks(self.scores, scope, self.device)
        self.weights = sum(weight.numel() for weight in self.full.values())
        self._calibration = list(calibration_chunks(self._twin, calibration_rows(domains))) if recalibrated else None
        self._size = batch_size(base, example)
        self._cache: dict[tuple[object, ...], list[Batch]] = {}

    def removed(self, fraction: float) -> int:
        """Return how many weights are zeroed if a fraction is kept: floor((1 - fraction) N + 1e-9), as `scope` says."""
        if self.scope == "global":
            return _removed_count(fraction, self.weights)
        return sum(_removed_count(fraction, rank.numel()) for rank in self._ranks.values())

    def zero(self, fraction: float) -> None:
        """Keep this fraction of the weights, those with the highest scores, and set the others to zero."""
        with torch.no_grad():
            for name, removed in self._masks(fraction):
                torch.where(removed, self._zero[name], self.full[name], out=self._written[name])

    def removed_norm(self, fraction: float) -> float:
        """Return the L2 norm of the weights that `zero(fraction)` removes."""
        squares = [self.full[name].double().square()[removed].sum() for name, removed in self._masks(fraction)]
        return math.sqrt(float(torch.stack(squares).sum()))

    def shift(self, direction: dict[str, Tensor], *, by: float) -> None:
        """Set the weights to those of the full network plus `by` times a direction (one tensor per weight tensor)."""
        with torch.no_grad():
            for name, weight in self.full.items():
                torch.add(weight, direction[name], alpha=by, out=self._written[name])

    def direction(self, seed: int, *, unit: bool = False) -> dict[str, Tensor]:
        """Draw a direction: standard normal numbers in the shape of each weight tensor; total norm 1 if `unit`."""
        generator = torch.Generator().manual_seed(seed)
        normal = {name: torch.randn(weight.shape, generator=generator) for name, weight in self.full.items()}
        norm = math.sqrt(sum(float(part.double().square().sum()) for part in normal.values())) if unit else 1.0
        return {name: (part / norm).to(self.device, self.full[name].dtype) for name, part in normal.items()}

    def outputs(
        self, domains: Sequence[Domain], *, split: str, images: int | None = None
    ) -> Generator[None, None, list[tuple[Tensor, Tensor]]]:
        """Return (logits, labels) of each batch of this split of every domain, in eval mode; yields between batches."""
        if self._calibration is not None:
            yield from yielding(calibration_steps(self._twin, self._calibration), None)
        outputs: list[tuple[Tensor, Tensor]] = []
        for logits, labels in self._forward(domains, split, images):
            outputs.append((logits, labels))
            yield
        return outputs

    def losses(
        self, domains: Sequence[Domain], *, split: str, images: int | None = None, most: float = math.inf
    ) -> Generator[None, None, Tensor]:
        """Return the cross-entropy of each image of this split of every domain, (N,) float64; yields between batches.

        The values are not finite where the masked network overflows. As no loss is negative, the pass stops after the
        batch at which the sum of the losses exceeds `most`, and returns the losses so far: fewer than N, unless that
        batch is the last.
        """
        if self._calibration is not None:
            yield from yielding(calibration_steps(self._twin, self._calibration), None)
        losses, total = [], 0.0
        for logits, labels in self._forward(domains, split, images):
            with torch.inference_mode():
                losses.append(F.cross_entropy(logits, labels, reduction="none"))
            yield
            if most < math.inf and (total := total + float(losses[-1].double().sum())) > most:
                break
        return torch.cat(losses).cpu().double().clone()

    def _forward(self, domains: Sequence[Domain], split: str, images: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (logits, labels) of each batch, in eval mode."""
        for domain in domains:
            for batch in self._batches(domain, split, images):
                assert batch.labels is not None
                with torch.inference_mode(), full_precision(self.device):
                    logits = self._twin(batch.images)
                yield logits, batch.labels

    def _batches(self, domain: Domain, split: str, images: int | None) -> Iterable[Batch]:
        """Return the batches of a split, cached if they fit, since they are read about a hundred times."""
        key = (domain.key, split, images)
        if key not in self._cache:
            batches = domain.batches(split, size=self._size, images=images, device=self.device, layout=self.layout)
            size = sum(batch.images.nbytes for cached in self._cache.values() for batch in cached)
            size += 4 * len(domain.rows(split, images)) * math.prod(domain.shape)  # float32
            if size > cache_room(_SHARE, size):
                return batches
            self._cache[key] = list(batches)
        return self._cache[key]

    def _masks(self, fraction: float) -> Iterator[tuple[str, Tensor]]:
        """Yield the name of each weight tensor and a bool tensor of the removed weights."""
        for name, rank in self._ranks.items():
            yield name, rank < _removed_count(fraction, self.weights if self.scope == "global" else rank.numel())

    def _check_scores(self) -> None:
        for name, value in self.scores.values.items():
            got = tuple(self.full[name].shape) if name in self.full else "no such tensor"
            if got != tuple(value.shape):
                raise DgpruneError(
                    f"the scores were made for another network: {name} should have shape {tuple(value.shape)}, "
                    f"got {got}."
                )


def _removed_count(fraction: float, size: int) -> int:
    """Return the number of weights removed out of `size`, rounded as in `allocate` at the ratio 1 - fraction."""
    return math.floor((1 - fraction) * size + 1e-9)


def _ranks(scores: WeightScores, scope: Scope, device: torch.device) -> dict[str, Tensor]:
    """Rank each weight, 0 = removed first, over all weights or within each tensor; ties by position."""

    def order(flat: Tensor) -> Tensor:
        ranks = torch.empty(len(flat), dtype=torch.int32, device=flat.device)
        ranks[flat.argsort(stable=True)] = torch.arange(len(flat), dtype=torch.int32, device=flat.device)
        return ranks

    return {name: ranks.to(device) for name, ranks in by_scope(scores.values, scope, order).items()}
