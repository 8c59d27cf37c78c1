"""A warning if a network classifies a source at chance, based on outcomes that are computed anyway."""

from __future__ import annotations

from ..core import Domain, Mask, Outcomes, note

_TAIL = 0.025  # of a two-sided 95 % interval
_ENOUGH = 100  # images for a verdict, or the whole split if it has fewer
_CAUSES = (
    "the network expects normalised images, or another normalisation, such as ImageNet's mean and standard deviation "
    "(Study(..., normalise='imagenet'))",
    "its outputs are in another order than the labels",
    "it is not trained",
)
_PRUNED = "too many filters are removed"
_STALE = "its BatchNorm statistics are stale (dg.recalibrate, or batchnorm='recalibrate')"


def at_chance(outcomes: Outcomes, *, classes: int) -> bool:
    """Return whether a network's accuracy is not significantly above chance.

    True where the lower end of the exact 95 % interval of the accuracy (Clopper and Pearson 1934) is not above
    1 / classes, or where the network predicts one class for all images although they have several. False without
    labels, and for so few images that the lower end would not be above chance even at 100 % accuracy.
    """
    from scipy.special import bdtrc

    images, level = len(outcomes), 1 / max(classes, 1)
    if outcomes.correct is None or outcomes.labels is None or level**images > _TAIL:
        return False
    correct = int(outcomes.correct.sum())
    if correct == 0 or bdtrc(correct - 1, images, level) > _TAIL:  # P(guessing gets at least as many right)
        return True
    return len(outcomes.predicted.unique()) == 1 < len(outcomes.labels.unique())


class ChanceWatch:
    """Warns once, with the usual causes, if a source is classified at chance on its score or report split.

    Attributes:
        batchnorm: whether the network has BatchNorm whose statistics may be stale.
        pruned: whether the network is known to be pruned.
    """

    def __init__(self, *, batchnorm: bool, pruned: bool = False) -> None:
        self.batchnorm, self.pruned, self._silent = batchnorm, pruned, False

    def see(self, outcomes: Outcomes, domain: Domain, *, split: str, mask: Mask | None = None) -> None:
        """Check the outcomes of a split, and warn if at chance; never if `mask` removes filters from the network.

        Outcomes of fewer than 100 images that are not the whole split are ignored, as they give only an estimate.
        """
        if self._silent or domain.role == "target" or split not in ("score", "report"):
            return
        if len(outcomes) < min(_ENOUGH, len(domain.rows(split))):
            return
        unpruned = mask is None or all(bool(keep.all()) for keep in mask.keep.values())
        if unpruned and at_chance(outcomes, classes=domain.classes):
            self._silent = True
            causes = [_PRUNED] * self.pruned + [_STALE] * self.batchnorm + [*_CAUSES]
            note(f"{_describe_accuracy(outcomes, domain, split)} Usual causes: {'; '.join(causes)}.")


def _describe_accuracy(outcomes: Outcomes, domain: Domain, split: str) -> str:
    assert outcomes.correct is not None
    images, correct, predicted = len(outcomes), int(outcomes.correct.sum()), outcomes.predicted.unique()
    verdict = f"{domain.role or 'domain'} {domain.name!r} is classified at chance"
    counts, rate, of_split = f"{correct:,} of {images:,}", f"{100 * correct / images:.1f} %", f"of its split {split!r}"
    if len(predicted) == 1:
        prediction = f"class {int(predicted[0])} is predicted for every image {of_split}"
        return f"{verdict}: {prediction}, so {counts} are right ({rate})."
    return f"{verdict}: {counts} images {of_split} are right ({rate}; guessing gives {100 / domain.classes:.1f} %)."
