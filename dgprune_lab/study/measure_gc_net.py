"""Measure a GC-Net: correlations between consecutive layers on the sources of a study."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core import DgpruneError, FilterGroup, Need, Pair, Seen, pair_names, public, set_provenance
from ..measurement import pairs
from ..scorers import correlation, expected_null, note_if_few
from .gc_net import GCNet, input_positions
from .study import Study


@public
def gc_net(study: Study, *, by_class: bool = True, signed: bool = False, split: str = "score") -> GCNet:
    """Measure the GC-Net of a study's network: the correlations between consecutive layers on the sources.

    rho_ij = mean over sources (equal weight) and classes of |Pearson(a_i, a_j)|, a = spatial mean of a raw convolution
    output (for a linear layer, its output); 0 where a standard deviation is below 1e-3; classes with fewer than 3
    images are left out. No target is read.

    The dependency graph defines consecutive layers: a layer consumes filters through normalisation, activations,
    pooling and flattening. After a residual addition, the response of a filter is the sum of the raw outputs of all
    convolutions that the stream adds up there; after a depthwise convolution, it is that convolution's output. After a
    concatenation a layer makes a pair with each group. Grouped convolutions make no pair as consumers.

    Args:
        study: the network and its domains.
        by_class: correlate within each true class; if False, over all images together, which reads no label.
        signed: average the correlations themselves instead of their absolute values.
        split: the split of the sources that is read; the provenance records it.

    Returns:
        A GCNet, whose `pairs` hold the null level of rho.

    Raises:
        DgpruneError: a source without labels or without 3 images of any class; co-moments above 256 MB; no pair.

    Source: Wisell and Yasaei Sekeh 2024, Ghost-Connect Net, arXiv:2411.09199; only the abstract is available: the
    channel form, the null level and the mapping back to kernels are our reconstruction.
    """
    need: Need = "class_co_moments" if by_class else "co_moments"
    layer_pairs = pairs(study.model, study.graph)
    if not layer_pairs:
        raise DgpruneError("this network has no pair of consecutive layers to connect; grouped convolutions make none.")
    named = dict(zip(pair_names([(group.name, layer) for group, layer in layer_pairs]), layer_pairs, strict=True))
    images: dict[str, tuple[int, ...]] = {}
    measured: dict[str, list[tuple[Any, ...]]] = {name: [] for name in named}
    for domain in study.sources:
        co_moments = getattr(study.statistics(domain.name, needs=[need], split=split), need)
        for name, (group, layer) in named.items():
            sums = co_moments[group.name, layer]
            images[domain.name] = tuple(sums.images.tolist())
            rho, null = (correlation(sums, signed=signed, shuffled=shuffled) for shuffled in (False, True))
            measured[name].append((rho, null, expected_null(sums.images, signed=signed)))
    means: dict[str, list[Any]] = {
        name: [sum(part) / len(parts) for part in zip(*parts, strict=True)] for name, parts in measured.items()
    }
    note_if_few(images)
    reads: dict[str, Seen] = {f"{name}/{split}": "labels" if by_class else "images" for name in images}
    network = GCNet(
        study.graph,
        images=images,
        options={"by_class": by_class, "signed": signed, "split": split},
        reads=reads,
        pairs=tuple(_pair(name, *named[name], null=null, expected=level) for name, (_, null, level) in means.items()),
        rho={name: rho.T.contiguous() for name, (rho, *_) in means.items()},
        magnitude={name: _kernel_norms(study.model, group, layer=layer) for name, (group, layer) in named.items()},
    )
    set_provenance(network, study.provenance.adding("scorer", reads))
    return network.eval()


def _pair(name: str, group: FilterGroup, layer: str, *, null: Tensor, expected: float) -> Pair:
    level, spread = float(null.abs().mean()), float(null.std(correction=0))
    return Pair(name=name, group=group.name, layer=layer, null=level, null_spread=spread, null_expected=expected)


def _kernel_norms(model: nn.Module, group: FilterGroup, *, layer: str) -> Tensor:
    """Return the (outputs, filters) L1 norm of the weights from each filter of a group to each output of a layer."""
    parts = []
    for axis, positions, filters in input_positions(group, layer):
        norms = model.get_parameter(f"{layer}.weight").detach().abs().double().cpu().movedim(axis, 1)
        norms = norms.reshape(*norms.shape[:2], -1).sum(2)
        parts.append(norms.new_zeros(len(norms), group.filters).index_add_(1, filters, norms[:, positions]))
    return torch.stack(parts).sum(0)
