"""The pictures of training, features and scorers: one function per word, SVG elements on 200 x 100 units."""

from __future__ import annotations

from .drawing import INK, SOURCE, TARGET, arrow, axes, box, curve, dot, kept, line, square, text

# Two clouds of points, around the point where each is drawn.
_CLOUD = ((-12, -4), (-6, 7), (-3, -10), (2, 2), (6, -6), (9, 8), (13, -1), (-9, 12), (0, 14))


def fine_tuning() -> str:
    path = "M 26 24 L 84 24 L 84 62 C 100 34 120 30 186 27"
    return (
        axes(across="training", up="accuracy")
        + curve(path)
        + text((80, 58), "removal", size=9.5, anchor="end")
        + text((140, 46), "fine-tuning", size=9.5)
    )


def training_seed() -> str:
    ends = ((22, "", "seed 0"), (34, "6 3", "seed 1"), (47, "2 2", "seed 2"))
    curves = "".join(
        curve(f"M 26 {78 - k} C 60 {y} 90 {y + 2} 148 {y}", dash=dash) for k, (y, dash, _) in enumerate(ends)
    )
    return (
        axes(across="training", up="accuracy")
        + curves
        + "".join(text((152, y + 4), name, anchor="start", size=10) for y, _, name in ends)
    )


_RUN = (
    "M 26 66 C 34 40 44 30 58 28 L 58 48 C 66 32 78 26 98 24 "  # up, the first event, up again
    "L 98 52 C 108 34 122 24 142 22 L 142 36 C 152 24 170 20 188 19"
)


def instability() -> str:
    fall = line([(106, 24), (112, 24)]) + line([(109, 24), (109, 52)]) + line([(106, 52), (112, 52)])
    label = text((114, 66), "lost at an event", size=9.5, anchor="start")
    return axes(across="training", up="accuracy") + curve(_RUN) + fall + label


def mean_stability() -> str:
    falls = ((44, 20), (84, 28), (124, 14), (164, 18))
    full = "".join(
        box((x, 16), (24, 62), opacity=0.0, stroke=INK) + box((x, 16), (24, fall), fill=INK, opacity=0.6)
        for x, fall in falls
    )
    mean = line([(36, 36), (194, 36)], dash="4 3", width=2)
    names = text((34, 20), "100 %", size=9, anchor="end") + text((34, 80), "0 %", size=9, anchor="end")
    return full + mean + names + text((100, 95), "lost at each event; dashed: the mean", size=9.5)


def prunability() -> str:
    loss = curve("M 36 14 C 60 60 76 68 110 70 L 188 71")
    limit = line([(24, 60), (190, 60)], dash="4 3")
    place = line([(69, 60), (69, 82)], dash="2 2") + dot((69, 60), radius=4)
    label = text((76, 56), "the allowed loss", size=9.5, anchor="start")
    return axes(across="share of weights kept", up="loss") + loss + limit + place + label


def flatness() -> str:
    wide = curve("M 12 22 C 40 92 72 92 98 22")
    narrow = curve("M 128 14 C 146 98 156 98 172 14")
    steps = dot((55, 74), radius=4) + dot((151, 76), radius=4)
    return wide + narrow + steps + text((55, 95), "flat", size=10) + text((151, 95), "sharp", size=10)


def sensitivity() -> str:
    shapes = line([(56, 76), (192, 76)], width=1, opacity=0.6) + text((192, 92), "contribution", size=9.5, anchor="end")
    for y, name, first, second in ((26, "filter 1", 110, 118), (56, "filter 2", 88, 160)):
        shapes += kept((8, y - 8)) + text((28, y + 3), name, anchor="start", size=9.5)
        shapes += line([(first, y), (second, y)], opacity=0.6) + dot((first, y), colour=SOURCE, radius=4)
        shapes += square((second, y), TARGET)
    return shapes + text((140, 44), "responds to the domain", size=9)


def effect_size() -> str:
    bell = "M {0} 76 C {1} 76 {1} 26 {2} 26 C {3} 26 {3} 76 {4} 76"
    first = curve(bell.format(16, 48, 68, 88, 120), colour=SOURCE)
    second = curve(bell.format(76, 108, 128, 148, 180), colour=TARGET, dash="6 3")
    width = line([(68, 26), (68, 14)], opacity=0.6) + line([(128, 26), (128, 14)], opacity=0.6)
    return (
        line([(10, 76), (190, 76)], width=1, opacity=0.6)
        + first
        + second
        + width
        + arrow((68, 18), (128, 18))
        + text((98, 12), "d", bold=True)
        + text((100, 93), "spread of one domain = 1", size=9.5)
    )


def feature_shift() -> str:
    clouds = _cloud((56, 46), target=False) + _cloud((146, 42), target=True)
    return (
        axes()
        + clouds
        + arrow((76, 45), (122, 45))
        + text((100, 38), "shift", size=10)
        + text((108, 95), "features of two domains", size=9.5)
    )


def mmd() -> str:
    clouds = _cloud((52, 44), target=False) + _cloud((148, 44), target=True)
    within = line([(44, 34), (58, 46)], opacity=0.8) + line([(142, 34), (157, 52)], opacity=0.8)
    across = line([(61, 43), (136, 40)], dash="4 3")
    return (
        clouds
        + within
        + across
        + text((100, 34), "across", size=9.5)
        + text((100, 88), "close within, less close across", size=9.5)
    )


def _cloud(centre: tuple[float, float], *, target: bool) -> str:
    points = [(centre[0] + x, centre[1] + y) for x, y in _CLOUD]
    return "".join(square(point, TARGET) if target else dot(point, colour=SOURCE, radius=2.6) for point in points)


def umap() -> str:
    many = "".join(box((12 + 5 * k, 18 + 5 * k), (38, 38), dash="" if k == 2 else "2 2") for k in range(3))
    plane = box((124, 14), (66, 56)) + _cloud((144, 32), target=False) + _cloud((170, 50), target=True)
    names = text((46, 90), "many dimensions", size=9.5) + text((157, 90), "a map of two", size=9.5)
    return many + text((41, 50), "x₁ … x₉", size=8) + arrow((72, 42), (114, 42)) + plane + names


def dss() -> str:
    first, second = (0.1, 0.2, 0.1, 0.3, 0.9, 0.3, 0.1, 0.7, 0.2), (0.7, 0.2, 0.1, 0.9, 0.2, 0.1, 0.2, 0.1, 0.6)
    maps = "".join(
        box((x + 14 * (k % 3), 20 + 14 * (k // 3)), (14, 14), fill=colour, stroke=colour, opacity=share)
        for x, colour, shares in ((20, SOURCE, first), (138, TARGET, second))
        for k, share in enumerate(shares)
    )
    names = text((41, 78), "mean map,", size=9.5) + text((41, 90), "source", size=9.5)
    names += text((159, 78), "mean map,", size=9.5) + text((159, 90), "target", size=9.5)
    return maps + arrow((90, 41), (70, 41)) + arrow((110, 41), (130, 41)) + text((100, 30), "alike?", size=11) + names


def risk_variance() -> str:
    shapes = axes(up="risk")
    for x, heights, name in ((48, (50, 22), "with the filter"), (126, (34, 31), "without it")):
        for place, height in enumerate(heights):
            shapes += box(
                (x + 20 * place, 82 - height), (16, height), fill=SOURCE, stroke=SOURCE, opacity=0.6 - 0.35 * place
            )
        shapes += text((x + 18, 95), name, size=9.5)
    return shapes + text((108, 14), "risks on two sources", size=9.5)


def gc_net() -> str:
    left, right = (20, 50, 80), (30, 70)
    widths = {(20, 30): 5, (20, 70): 2, (50, 30): 1, (50, 70): 4, (80, 30): 0.6, (80, 70): 0.6}
    links = "".join(line([(54, a), (132, b)], width=width, opacity=0.7) for (a, b), width in widths.items())
    nodes = "".join(kept((40, y - 7), keep=y != 80) for y in left) + "".join(kept((132, y - 7)) for y in right)
    names = text((34, 54), "layer", size=9, anchor="end") + text((151, 54), "next layer", size=9, anchor="start")
    return links + nodes + names + text((110, 97), "thick = strongly correlated", size=9)


PICTURES = {
    "fine-tuning": fine_tuning,
    "training seed": training_seed,
    "instability": instability,
    "mean stability": mean_stability,
    "prunability": prunability,
    "flatness": flatness,
    "sensitivity": sensitivity,
    "effect size": effect_size,
    "feature shift": feature_shift,
    "MMD": mmd,
    "UMAP": umap,
    "DSS": dss,
    "risk variance": risk_variance,
    "GC-Net": gc_net,
}
