"""The pictures of data and pruning: one function per word, SVG elements on 200 x 100 units."""

from __future__ import annotations

from .drawing import INK, SOURCE, TARGET, arrow, axes, box, curve, digit, dot, kept, line, row, square, text, whisker


def domain() -> str:
    plain = "".join(digit((6 + 29 * k, 14), figure) for k, figure in enumerate("371"))
    striped = "".join(digit((110 + 29 * k, 14), figure, target=True) for k, figure in enumerate("371"))
    names = text((48, 60), "one domain", colour=SOURCE, bold=True) + text(
        (152, 60), "another", colour=TARGET, bold=True
    )
    return plain + striped + names + text((100, 84), "the same classes, another look")


def source() -> str:
    images = digit((8, 10), "3") + digit((8, 42), "7")
    label = text((46, 88), "images and labels", size=10)
    return images + arrow((42, 40), (92, 40), colour=SOURCE) + text((67, 32), "trains", size=10) + _network() + label


def target() -> str:
    images = digit((8, 10), "3", target=True) + digit((8, 42), "7", target=True)
    arrows = arrow((42, 40), (92, 40), colour=TARGET) + text((67, 32), "tests", size=10)
    return images + arrows + _network() + text((60, 88), "never trained on", size=10) + text((180, 44), "?", size=22)


def _network() -> str:
    layers = [(100, 12, 56), (116, 20, 40), (132, 26, 28), (148, 32, 16)]
    return "".join(box((x, y), (10, height), fill=INK, opacity=0.3) for x, y, height in layers)


def split() -> str:
    parts = [(8, 92, "train", "trains"), (100, 46, "score", "scorers read"), (146, 46, "report", "is reported")]
    shapes = ""
    for place, (x, width, name, use) in enumerate(parts):
        shapes += box((x, 34), (width, 26), fill=SOURCE, stroke=SOURCE, opacity=0.45 - 0.15 * place)
        shapes += text((x + width / 2, 51), name, bold=True) + text(
            (x + width / 2, 76 + 12 * (place == 1)), use, size=9.5
        )
    return text((100, 22), "the images of one domain") + shapes


def filter_() -> str:
    weights = "".join(
        box((86 + 9 * (k % 3), 26 + 9 * (k // 3)), (9, 9), fill=INK, opacity=share)
        for k, share in enumerate((0.1, 0.5, 0.9, 0.1, 0.5, 0.9, 0.1, 0.5, 0.9))
    )
    map_cells = "".join(
        box((146 + 9 * (k % 4), 22 + 9 * (k // 4)), (9, 9), fill=INK, opacity=share)
        for k, share in enumerate((0.1, 0.8, 0.2, 0.1, 0.1, 0.1, 0.9, 0.2, 0.2, 0.8, 0.3, 0.1, 0.1, 0.1, 0.8, 0.2))
    )
    names = [(28, "image"), (99, "filter"), (164, "its map")]
    arrows = arrow((52, 40), (78, 40)) + arrow((118, 40), (140, 40))
    return (
        digit((10, 22), "3", size=36) + weights + map_cells + arrows + "".join(text((x, 78), name) for x, name in names)
    )


def group() -> str:
    keep = (True, True, False, True)
    links = "".join(line([(37 + 18 * k, 30), (37 + 18 * k, 58)], dash="2 2", opacity=0.7) for k in range(4))
    names = text((106, 25), "one convolution", anchor="start", size=10) + text(
        (106, 71), "another", anchor="start", size=10
    )
    foot = text((100, 94), "maps are added channel by channel", size=9.5)
    return row((30, 14), keep) + row((30, 60), keep) + links + names + text((16, 50), "+", size=18) + foot


def mask() -> str:
    keep = (True, False, True, True, False, True, False, True, True)
    marks = "".join(text((27 + 18 * k, 62), "1" if stays else "0", bold=stays) for k, stays in enumerate(keep))
    return (
        text((100, 18), "filters of one layer")
        + row((20, 28), keep)
        + marks
        + text((100, 84), "1 = stays, 0 = removed")
    )


def ratio() -> str:
    bracket = line([(101, 54), (101, 60), (187, 60), (187, 54)])
    filters = row((12, 34), [True] * 5 + [False] * 5)
    return filters + bracket + text((144, 76), "5 of 10 removed") + text((100, 22), "ratio 0.5", bold=True)


def scorer() -> str:
    heights = (34, 12, 44, 22, 8, 52)
    bars = "".join(
        box((36 + 24 * k, 70 - height), (14, height), fill=INK if height > 15 else "none", opacity=0.6)
        + (kept((36 + 24 * k, 76), keep=height > 15))
        for k, height in enumerate(heights)
    )
    return text((100, 12), "one number for each filter", size=10) + bars


def control() -> str:
    names = text((10, 34), "scorer", anchor="start") + text((10, 64), "random", anchor="start")
    points = whisker((140, 30), 22) + whisker((120, 60), 26)
    scale = line([(64, 80), (192, 80)], width=1, opacity=0.6) + text((192, 94), "accuracy", anchor="end", size=9.5)
    return text((128, 14), "better than chance?", size=10) + names + points + scale


def target_aware() -> str:
    eye = curve("M 20 44 Q 42 22 64 44 Q 42 66 20 44 Z") + dot((42, 44), radius=7)
    images = digit((118, 14), "3", target=True) + digit((150, 14), "7", target=True)
    images += digit((118, 46), "1", target=True) + digit((150, 46), "4", target=True)
    looks = line([(70, 44), (110, 44)], dash="4 3", colour=TARGET)
    return (
        eye
        + looks
        + images
        + text((42, 84), "the scorer looks", size=10)
        + text((148, 90), "◇ target-aware", bold=True)
    )


def provenance() -> str:
    rows = [("training", "source/train"), ("scorer", "source/score"), ("selection", "nothing")]
    lines = "".join(
        text((12, 36 + 22 * k), stage, anchor="start") + text((88, 36 + 22 * k), what, anchor="start", size=10)
        for k, (stage, what) in enumerate(rows)
    )
    rules = "".join(line([(8, y), (192, y)], width=0.8, opacity=0.5) for y in (21, 43, 65, 87))
    head = text((12, 15), "stage", anchor="start", size=9.5) + text((88, 15), "has read", anchor="start", size=9.5)
    return head + lines + rules


def recalibration() -> str:
    before = curve("M 60 74 C 92 74 92 24 112 24 C 132 24 132 74 164 74", dash="4 3", width=1.6)
    after = curve("M 28 74 C 60 74 60 24 80 24 C 100 24 100 74 132 74")
    middle = line([(80, 14), (80, 78)], width=1, opacity=0.6)
    names = text((146, 34), "removed,", anchor="start", size=9.5) + text((146, 46), "stale", anchor="start", size=9.5)
    names += text((50, 34), "collected", anchor="end", size=9.5) + text((50, 46), "again", anchor="end", size=9.5)
    foot = text((80, 92), "mean 0", size=9.5)
    return line([(14, 74), (190, 74)], width=1, opacity=0.6) + middle + before + after + names + foot


def accuracy_change() -> str:
    bars = box((44, 20), (30, 62), fill=SOURCE, stroke=SOURCE, opacity=0.45)
    bars += box((104, 44), (30, 38), fill=SOURCE, stroke=SOURCE, opacity=0.45)
    drop = line([(74, 20), (160, 20)], dash="3 3", opacity=0.7) + arrow((150, 22), (150, 44))
    names = (
        text((59, 95), "before", size=9.5) + text((119, 95), "after", size=9.5) + text((172, 37), "change", size=9.5)
    )
    return axes(up="accuracy") + bars + drop + names


def interval() -> str:
    zero = line([(72, 10), (72, 76)], dash="3 3", opacity=0.8) + text((72, 92), "0")
    names = text((124, 16), "a difference", size=9.5) + text((132, 61), "none is shown", size=9.5, anchor="start")
    return zero + whisker((124, 28), 26) + whisker((92, 58), 34) + names


def paired() -> str:
    pairs = [(28, 22), (50, 45), (38, 30), (70, 62), (60, 55)]
    shapes = "".join(line([(60, a), (140, b)], opacity=0.7) + dot((60, a)) + square((140, b), INK) for a, b in pairs)
    return (
        shapes
        + text((60, 92), "network A", size=10)
        + text((140, 92), "network B", size=10)
        + text((100, 12), "each line: the same image", size=9.5)
    )


PICTURES = {
    "domain": domain,
    "source": source,
    "target": target,
    "split": split,
    "filter": filter_,
    "group of filters": group,
    "mask": mask,
    "ratio": ratio,
    "scorer": scorer,
    "control": control,
    "target-aware": target_aware,
    "provenance": provenance,
    "BatchNorm recalibration": recalibration,
    "accuracy change": accuracy_change,
    "interval": interval,
    "paired difference": paired,
}
