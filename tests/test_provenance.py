"""Provenance: merging loses nothing, target-aware is a fact per row, one sentence says who looked at what."""

from __future__ import annotations

import copy
import json
from typing import Any, cast

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from material import domain as random_domain
from material import fingerprint, norm_net, randomise

import dgprune_lab as dg
from dgprune_lab.core.exposure import exposure_of, scorer_exposure
from dgprune_lab.core.provenance import CHOOSING, MORE, STAGES, Provenance, Reads, declared, merged, set_provenance

ROLES = {"a": "source", "b": "source", "t": "target", "u": "target"}
LEVELS = ("none", "unknown", "images", "labels")
KEYS = [f"{name}/{split}" for name in ("a", "t", "by/night") for split in ("train", "score", "report")]
readings = st.none() | st.dictionaries(st.sampled_from([*KEYS, "t/*", MORE]), st.sampled_from(LEVELS))
provenances = st.builds(Provenance, training=readings, scorer=readings, finetuning=readings, selection=readings)


def level(reads: Any, part: str) -> int:
    domain, _, split = part.rpartition("/")
    return LEVELS.index(Provenance(scorer=reads).seen("scorer", domain, split))


@given(readings, readings, readings)
def test_merging_has_no_order_and_forgets_nothing(one: Any, two: Any, three: Any) -> None:
    assert merged(one, two) == merged(two, one)
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    whole = merged(one, two)
    assert merged(whole, one) == merged(whole, whole) == whole == merged(whole, {})
    for part in KEYS:
        assert level(whole, part) >= max(level(one, part), level(two, part))
        every = f"{part.rpartition('/')[0]}/*"
        known = [LEVELS.index((reads or {}).get(key, "none")) for reads in (one, two) for key in (part, every)]
        assert level(whole, part) == max(*known, level(whole, "elsewhere/score")), "and invents nothing"


@pytest.mark.parametrize(
    ("one", "two", "both"),
    [
        ({}, {}, {}),
        ({"a/score": "images"}, {"a/score": "labels"}, {"a/score": "labels"}),
        ({"a/score": "labels"}, {"a/score": "images"}, {"a/score": "labels"}),
        ({"a/score": "images"}, {"t/score": "images"}, {"a/score": "images", "t/score": "images"}),
        ({"t/score": "images"}, {"t/score": "none"}, {"t/score": "images"}),
        (None, {}, None),
        (None, {"t/score": "images"}, {MORE: "unknown", "t/score": "images"}),
    ],
)
def test_merging_two_readings(one: Reads, two: Reads, both: Reads) -> None:
    assert merged(one, two) == merged(two, one) == both
    assert Provenance(finetuning=one).adding("finetuning", two).finetuning == both


def test_what_a_stage_has_read() -> None:
    provenance = Provenance(
        scorer={"t/score": "images", "by/night/score": "labels"}, finetuning={MORE: "unknown", "a/train": "images"}
    )
    assert [provenance.seen("scorer", "t", split) for split in ("score", "report")] == ["images", "none"]
    assert (
        provenance.seen("scorer", "by/night", "score") == "labels"
        and provenance.seen("scorer", "by", "night/score") == "labels"
    )
    assert (
        provenance.seen("training", "a", "train") == "unknown" and provenance.seen("selection", "a", "train") == "none"
    )
    assert [provenance.seen("finetuning", "a", split) for split in ("train", "report")] == ["images", "unknown"]
    assert (
        provenance.seen_anywhere("scorer", "by/night") == "labels"
        and provenance.seen_anywhere("scorer", "by") == "none"
    )
    assert provenance.seen_anywhere("finetuning", "t") == "unknown"
    whole = Provenance(training={"t/*": "images", "t/train": "labels", MORE: "unknown"})
    assert [whole.seen("training", "t", split) for split in ("train", "report")] == ["labels", "images"]
    assert [whole.seen("training", name, "train") for name in ("a", "t/*")] == ["unknown", "unknown"]
    assert whole.seen_anywhere("training", "t") == "labels"
    with_roles = provenance.columns("t", "report", roles=ROLES)
    assert list(with_roles) == [f"seen_by_{stage}" for stage in STAGES] + ["target_aware"]
    assert "target_aware" not in provenance.columns("t", "report")


TRAINED = {"a/train": "labels", "b/train": "labels"}


@pytest.mark.parametrize("stage", CHOOSING)
@pytest.mark.parametrize(
    ("reads", "targets", "unsure"),
    [
        ({}, "", False),
        ({"a/score": "labels", "b/report": "images"}, "", False),
        ({"t/score": "images"}, "t", False),
        ({"t/report": "labels"}, "t", False),
        ({"u/score": "images", "a/score": "images", "t/train": "images"}, "tu", False),
        (None, "", True),
        ({MORE: "unknown", "a/score": "images"}, "", True),
        ({MORE: "unknown", "t/score": "images"}, "t", True),
        ({"t/score": "none"}, "", False),
        ({"t/score": "unknown"}, "", True),
    ],
)
def test_target_aware_is_about_the_rows_target_and_elsewhere_about_any(
    stage: Any, reads: Any, targets: str, unsure: bool
) -> None:
    first = Provenance(training=TRAINED).adding(stage, reads)  # type: ignore[arg-type]
    unknown_training = Provenance(training=None).adding(stage, reads)
    for provenance in (first, first.adding("scorer", {"a/score": "labels"}), unknown_training):
        assert provenance.targets_seen(ROLES) == list(targets)
        anywhere = True if targets else None if unsure else False
        for domain in (None, "a", "b"):
            assert provenance.target_aware(ROLES, domain) is anywhere
        for domain in ("t", "u"):
            assert provenance.target_aware(ROLES, domain) is (True if domain in targets else None if unsure else False)
            assert provenance.columns(domain, "report", roles=ROLES)["target_aware"] is provenance.target_aware(
                ROLES, domain
            )


def test_a_domain_without_a_role_is_a_target_where_training_did_not_read_it() -> None:
    trained = Provenance(training=TRAINED, scorer={"a/score": "images", "t/score": "images"})  # type: ignore[arg-type]
    unknown = Provenance(training=None, scorer=trained.scorer)
    for roles in ({}, {"a": None, "t": None}):
        assert trained.targets_seen(roles) == ["t"] and trained.target_aware(roles)
        assert trained.target_aware(roles, "t") and trained.target_aware(roles, "a") is False
    assert unknown.target_aware({"a": None}) is None and unknown.target_aware({"a": None}, "a") is None
    assert unknown.target_aware({"a": "source", "t": "source"}) is False
    assert Provenance(training=None, scorer={}).target_aware({"a": None}) is False


@pytest.mark.parametrize("name", ["none", "unknown", "t, u", "*", "a/b"])
def test_no_domain_name_is_mistaken_for_a_word(name: str) -> None:
    roles = {"a": "source", name: "target", "t": "target"}
    provenance = Provenance(training=TRAINED, scorer={f"{name}/score": "images"})  # type: ignore[arg-type]
    assert provenance.targets_seen(roles) == [name]
    assert [provenance.target_aware(roles, domain) for domain in (None, "a", name, "t")] == [True, True, True, False]
    blind = Provenance(training=TRAINED, scorer={})  # type: ignore[arg-type]
    rows = [{"domain": name, "role": "target", **p.columns(name, "report", roles=roles)} for p in (provenance, blind)]
    frame = dg.tidy(rows)
    assert str(frame.target_aware.dtype) == "boolean" and frame.target_aware.tolist() == [True, False]
    assert [exposure_of(row) for row in frame.to_dict("records")] == ["target-aware", ""]
    assert [scorer_exposure([row]) for row in frame.to_dict("records")] == ["target-aware", ""]


def test_what_nobody_knows_is_missing_in_a_table() -> None:
    cells = Provenance(training=TRAINED, scorer=None).columns("t", "report", roles=ROLES)  # type: ignore[arg-type]
    frame = dg.tidy([{"domain": "t", "role": "target", **cells}])
    assert frame.target_aware.isna().all() and frame.seen_by_scorer.item() == "unknown"
    row = frame.to_dict("records")[0]
    assert exposure_of(row) == scorer_exposure([row]) == "?"


OTHERS = "(not the reported ones)"


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        ({"scorer": {"a/score": "labels"}}, None),
        ({"scorer": {"t/score": "images"}}, f"◇ Target-aware: the scorer looked at images of t {OTHERS}."),
        ({"scorer": {"t/score": "labels"}}, f"◇ Target-aware: the scorer looked at labels of t {OTHERS}."),
        (
            {"scorer": {"t/score": "images", "u/train": "images", "a/score": "images"}},
            f"◇ Target-aware: the scorer looked at images of t and u {OTHERS}.",
        ),
        (
            {"scorer": {"t/report": "images", "t/score": "images"}},
            "◇ Target-aware: the scorer looked at the reported images of t.",
        ),
        (
            {"scorer": {"t/report": "images", "t/score": "labels"}},
            f"◇ Target-aware: the scorer looked at the reported images of t and at labels of t {OTHERS}.",
        ),
        (
            {"scorer": {f"{name}/report": "images" for name in ROLES}},
            "◇ Target-aware: the scorer looked at the reported images.",
        ),
        (
            {"scorer": {"a/report": "images", "b/report": "labels"}},
            "◇ Seen: the scorer looked at the reported labels of b and at the reported images of a.",
        ),
        (
            {"selection": {"t/score": "labels"}, "finetuning": {"t/train": "images"}},
            f"◇ Target-aware: fine-tuning looked at images of t {OTHERS}; "
            f"the selection of this network looked at labels of t {OTHERS}.",
        ),
        ({"scorer": None}, "? Unknown: what the scorer looked at is not recorded."),
        (
            {"scorer": {MORE: "unknown", "t/score": "images"}},
            f"◇ Target-aware: the scorer looked at images of t {OTHERS}; "
            "what else the scorer looked at is not recorded.",
        ),
        (
            {"scorer": None, "selection": {"stranger/score": "labels"}},
            f"◇ Target-aware: the selection of this network looked at labels of stranger {OTHERS}; "
            "what the scorer looked at is not recorded.",
        ),
    ],
)
def test_one_sentence_says_exactly_who_looked_at_what(reads: Any, words: str | None) -> None:
    found = Provenance(training=cast(Reads, TRAINED), **reads).notice(ROLES, split="report")
    assert words == (None if found is None else f"{found.sign} {found.text}")


@given(provenances)
def test_the_sentence_and_the_cell_agree(provenance: Provenance) -> None:
    notice, targets = provenance.notice(ROLES, split="report"), provenance.targets_seen(ROLES)
    aware = notice is not None and notice.text.startswith("Target-aware")
    assert aware == bool(targets) == (provenance.target_aware(ROLES) is True)
    assert not targets or (notice is not None and all(name in notice.text for name in targets))


@given(provenances)
def test_it_survives_a_file(provenance: Provenance) -> None:
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance


@pytest.mark.parametrize("value", [{"scorers": {}}, {"scorer": ["t/score"]}, {"scorer": {"t/score": "seen"}}, "all"])
def test_a_file_without_provenance_is_refused(value: Any) -> None:
    with pytest.raises(
        dg.DgpruneError, match=r"(stage 'scorer' maps splits|a provenance has the stages|value must be a dict)"
    ):
        Provenance.from_json(value)


WRONG = [
    {"target": "images"},
    {"t/": "images"},
    {"/score": "images"},
    {MORE: "unknown"},
    {"t/score": "none"},
    {"t/score": None},
    {("t", "score"): "images"},
    ["t/score"],
    "t/score",
]


@pytest.mark.parametrize("reads", WRONG, ids=repr)
def test_reads_that_name_no_split_are_refused(reads: Any) -> None:
    model = randomise(norm_net(), dtype=torch.float32)
    graph = dg.read_groups(model, torch.zeros(1, 3, 12, 12))
    frame = pd.DataFrame({"layer": [], "filter": [], "score": []})
    with pytest.raises(dg.DgpruneError, match=r"reads of the scores 'mine' must name splits|reads must be a dict"):
        dg.Scores.from_frame(frame, graph=graph, scorer="mine", reads=reads)
    with pytest.raises(dg.DgpruneError, match=r"reads of a mask by hand must name splits|reads must be a dict"):
        dg.Mask.by_hand(graph, reads=reads)
    assert declared(None, what="") is None and declared({}, what="") == {}
    assert declared({"by/night/score": "labels"}, what="") == {"by/night/score": "labels"}


def test_a_provenance_cannot_be_changed_by_whoever_reads_it() -> None:
    entries = {"t/score": "labels"}
    provenance = Provenance(training={}, scorer=cast(Reads, entries))
    entries.clear()
    with pytest.raises(TypeError):
        provenance.scorer["t/score"] = "none"  # type: ignore[index]
    provenance.to_json()["scorer"].clear()
    assert provenance.seen("scorer", "t", "score") == "labels" and provenance == Provenance(
        training={}, scorer={"t/score": "labels"}
    )


NET = randomise(norm_net(), dtype=torch.float32)
DOMAINS = {"sources": [random_domain("a"), random_domain("b", seed=1)], "targets": [random_domain("t", seed=2)]}


@pytest.mark.parametrize(
    ("declared_as", "seen"),
    [
        (["a"], {"a/report": "labels", "a/train": "labels", "b/report": "none", "t/report": "none"}),
        ("a", {"a/report": "labels", "b/train": "none"}),
        ({"a": ["train"], "b": "score"}, {"a/train": "labels", "a/report": "none", "b/score": "labels"}),
        ({"a": {"train": "labels", "score": "images"}}, {"a/train": "labels", "a/score": "images", "a/report": "none"}),
        (["imagenet"], {"a/train": "none", "t/report": "none", "imagenet/any": "labels"}),
        ([], {"a/train": "none", "t/report": "none"}),
    ],
)
def test_a_study_declares_what_training_has_read(declared_as: Any, seen: dict[str, str]) -> None:
    before = fingerprint(NET)
    study = dg.Study(NET, **DOMAINS, trained_on=declared_as)  # type: ignore[arg-type]
    for key, use in seen.items():
        assert study.provenance.seen("training", *key.split("/")) == use  # type: ignore[arg-type]
    assert fingerprint(NET) == before and dg.provenance_of(NET) == Provenance(), "the network given is as it was"
    mask = dg.allocate(study.score("l1"), ratio=0.5)
    for provenance in (dg.provenance_of(dg.prune(study.model, mask)), study.on("cpu").provenance):
        assert provenance.training == study.provenance.training, "and what is made of it knows"
    rows = dg.measure(study.model, study.domains, latency=False).set_index(["domain", "metric"])
    assert rows.seen_by_training["a", "accuracy"] == study.provenance.seen("training", "a", "report")
    assert "unknown" not in set(rows.seen_by_training.dropna())


def test_a_declaration_adds_to_what_a_network_records() -> None:
    recorded = copy.copy(NET)
    set_provenance(
        recorded, Provenance(training={"a/train": "labels", MORE: "unknown"}, selection={"b/score": "labels"})
    )
    study = dg.Study(recorded, **DOMAINS, trained_on={"b": ["train"]}, normalise=(0.5, 0.5))  # type: ignore[arg-type]
    assert study.provenance.training == {"a/train": "labels", "b/train": "labels"}
    assert study.provenance.selection == {"b/score": "labels"}
    assert dg.provenance_of(recorded).training == {"a/train": "labels", MORE: "unknown"}


def test_a_declaration_says_nothing_of_what_came_after_training() -> None:
    given = dg.Study(NET, **DOMAINS, trained_on=["a"]).provenance  # type: ignore[arg-type]
    again = Provenance.from_json(json.loads(json.dumps(given.adding("finetuning", {"a/train": "labels"}).to_json())))
    assert given.is_from_elsewhere and again.is_from_elsewhere and Provenance().is_from_elsewhere
    assert not Provenance(training={"a/train": "labels"}).declaring({"b/train": "labels"}).is_from_elsewhere


def test_surprising_declarations_are_said() -> None:
    with pytest.raises(dg.DgpruneError, match=r"unknown split of 'a' in trained_on 'trian'.*Did you mean 'train'"):
        dg.Study(NET, **DOMAINS, trained_on={"a": ["trian"]})  # type: ignore[arg-type]
    with pytest.warns(dg.DgpruneNote, match=r"training has read the target 't'"):
        dg.Study(NET, **DOMAINS, trained_on=["a", "t"])  # type: ignore[arg-type]
    named = [random_domain("sketch"), random_domain("photo", seed=1)]
    with pytest.warns(dg.DgpruneNote, match=r"'sketsh' is not a domain of this study.*'sketch' is one"):
        dg.Study(NET, sources=named, trained_on=["sketsh", "photo"])
    with pytest.warns(dg.DgpruneNote, match=r"'PHOTO' is not a domain of this study.*'photo' is one"):
        dg.Study(NET, sources=named, trained_on=["sketch", "PHOTO"])
    with pytest.raises(dg.DgpruneError, match=r"trained_on must be"):
        dg.Study(NET, **DOMAINS, trained_on={"a": {"train": "all"}})  # type: ignore[arg-type]
