"""Networks that are made once per results folder, read by other runs, and made anew where a file is not theirs."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from material import norm_net
from torch import nn

import dgprune_lab as dg
from dgprune_lab.experiments import Scratch
from dgprune_lab.experiments.settings import key_of
from dgprune_lab.models.saving import network_key


def numpy_state() -> list[int]:
    state: Any = np.random.get_state()
    return state[1].tolist()


KEY = {"training_seed": 1}
CPU = torch.device("cpu")


class Maker:
    """Makes a network that depends on the global generator; counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> nn.Module:
        self.made += 1
        return dg.models.networks.digits_net(widths=(2, 2, 2, 2, 2), seed=int(torch.randint(10**6, ())))


def test_a_network_is_made_once_and_the_same_everywhere(tmp_path: Path) -> None:
    make, place = Maker(), Scratch(tmp_path / "a", device=CPU)
    states = torch.get_rng_state(), numpy_state(), random.getstate()
    first, again = place.network(KEY, make), place.network(KEY, make)
    assert make.made == 1 and network_key(first) == network_key(again) and not again.training
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[2]
    assert numpy_state() == states[1]
    torch.rand(3)
    assert network_key(Scratch(tmp_path / "b", device=CPU).network(KEY, make)) == network_key(first)
    assert network_key(place.network({"training_seed": 2}, make)) != network_key(first) and make.made == 3


def test_two_that_need_a_network_at_once_make_it_once(tmp_path: Path) -> None:
    make, place, together = Maker(), Scratch(tmp_path, device=CPU), threading.Barrier(3)

    def ask(_: int) -> str:
        together.wait(timeout=60)
        return network_key(place.network(KEY, make))

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(ask, range(3)))) == 1
    assert make.made == 1


def test_a_torn_or_foreign_file_is_made_anew(tmp_path: Path) -> None:
    make, place = Maker(), Scratch(tmp_path, device=CPU)
    key = network_key(place.network(KEY, make))
    file = tmp_path / "networks" / f"{key_of(KEY)}.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    assert network_key(place.network(KEY, make)) == key and make.made == 2
    dg.save(make(), file)  # of somebody else
    assert network_key(place.network(KEY, make)) == key and make.made == 4
    other = file.with_name(key_of({"training_seed": 2}))
    for ending in (".safetensors", ".json"):
        other.with_suffix(ending).write_bytes(file.with_suffix(ending).read_bytes())
    assert network_key(place.network({"training_seed": 2}, make)) != key and make.made == 5


def test_a_network_of_no_builder_needs_a_fresh_one(tmp_path: Path) -> None:
    place = Scratch(tmp_path, device=CPU)
    with pytest.raises(dg.DgpruneError, match="pass fresh="):
        place.network(KEY, norm_net)
    first = place.network(KEY, norm_net, fresh=norm_net)
    assert network_key(place.network(KEY, norm_net, fresh=norm_net)) == network_key(first)


def test_where_nothing_can_be_written_each_run_makes_its_network(tmp_path: Path) -> None:
    (tmp_path / "networks").write_text("a file")
    make, place = Maker(), Scratch(tmp_path, device=CPU)
    key = network_key(place.network(KEY, make))
    assert network_key(place.network(KEY, make)) == key and make.made == 2
    assert network_key(Scratch(tmp_path / "b", device=CPU).network(KEY, make)) == key
