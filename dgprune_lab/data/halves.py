"""Two halves of one domain, without any shift between them: a check of shift measures."""

from __future__ import annotations

from ..core import DgpruneError, Domain, public


@public
def halves(domain: Domain, *, split: str = "report") -> tuple[Domain, Domain]:
    """Return every other image of a domain's split as one domain, and the remaining ones as another.

    Both have the same distribution, so any shift reported between them is false (5 of 100 95 % intervals exclude 0).
    Each half has only this split, under the same name.

    Raises:
        DgpruneError: a split of fewer than two images.

    >>> import dgprune_lab as dg
    >>> first, second = dg.data.halves(dg.data.mnist())
    >>> first.name, second.name, len(first), len(second)
    ('mnist, half 1', 'mnist, half 2', 500, 500)
    """
    rows = domain.rows(split)
    if len(rows) < 2:
        raise DgpruneError(f"domain {domain.name!r} has {len(rows)} images in its split {split!r}; two are needed.")
    domains = []
    for name, half in (("half 1", rows[::2]), ("half 2", rows[1::2])):
        batch = domain.take(half)
        domains.append(
            Domain.from_arrays(
                f"{domain.name}, {name}",
                images=batch.images,
                labels=batch.labels,
                classes=domain.class_names or domain.classes,
                splits={split: range(len(half))},
            )
        )
    return domains[0], domains[1]
