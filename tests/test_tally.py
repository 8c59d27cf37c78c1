"""Lines that carry guesses through a chat, and what a class guessed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import dgprune_lab as dg
from dgprune_lab.widgets.guess_lines import SYMBOLS, Guess, question_code, read_guesses

QUESTION, OPTIONS = "Which loses most?", ["mnist", "uci_digits", "mnist_m"]
CODE = question_code(QUESTION, OPTIONS)


def line(number: int, person: str, *, question: str = CODE) -> str:
    return str(Guess(question=question, number=number, person=person))


def counts(made: Any) -> list[int]:
    return made.table["guesses"].tolist()


@pytest.fixture
def guess() -> Any:
    return dg.predict(QUESTION, OPTIONS)


def test_a_line_is_there_once_a_guess_is_locked(guess: Any) -> None:
    assert guess.line is None
    guess.guess = "uci_digits"
    assert guess.line is None
    guess.lock()
    (read,) = read_guesses([str(guess.line)]).guesses
    assert (read.question, read.number) == (CODE, 2)
    again = dg.predict(QUESTION, OPTIONS)  # the cell is run again: still the same person
    again.guess = "uci_digits"
    again.lock()
    assert again.line == guess.line
    empty = dg.predict(QUESTION, OPTIONS)
    empty.reveal("mnist")
    assert empty.locked and empty.line is None


def test_chat_around_a_line_does_not_matter(guess: Any) -> None:
    chat = f"""
10:02:11 From Ana to Everyone: {line(1, "AAAAA")}
> {line(1, "BBBBB")}
"{line(2, "CCCCC").lower()}", said Jo, {line(3, "DDDDD")}.

**{line(3, "EEEEE").replace("-", "–")}**
{line(3, "FFFFF").replace("-", " ")}
<b>{line(1, "GGGGG").replace("-", " - ")}</b> - dg-prune is fun, see https://example.org/dg-lab-3
what do we have to do?
"""
    made = dg.tally(chat, guess=guess)
    assert counts(made) == [3, 1, 3]
    assert "Lines that do not count: 1 without a guess." in made.words


@pytest.mark.parametrize("gap", ["-", " ", " - "])
def test_guesses_pasted_without_a_space_between_them_count_each(guess: Any, gap: str) -> None:
    first, second, third = (
        line(number, 5 * symbol).replace("-", gap) for number, symbol in ((1, "A"), (3, "D"), (3, "G"))
    )
    made = dg.tally(first + second.upper() + third, guess=guess)
    assert counts(made) == [1, 0, 2] and len(made.words) == 1
    assert counts(dg.tally(f"Ana{first}{second}", guess=guess)) == [1, 0, 1]


def test_a_guess_joined_to_a_mistyped_one_counts_and_the_other_is_quoted(guess: Any) -> None:
    good = line(2, "AADGD")
    for cut in (line(1, "BBBBB")[:-2], line(1, "BBBBB") + "7", line(1, "BBBBB")[:-1] + "0"):
        for joined in (good + cut, cut + good):
            made = dg.tally(joined, guess=guess)
            assert counts(made) == [0, 1, 0], joined
            assert made.words[1] == f"Lines that do not count: 1 mistyped ({cut.upper()}).", joined
    with pytest.raises(dg.DgpruneError, match=rf"2 mistyped \({cut.upper()}, {cut.upper()}\)"):
        dg.tally(cut + cut, guess=guess)


def test_one_line_pasted_twice_counts_once_and_two_people_count_twice(guess: Any) -> None:
    lines = [line(1, "AAAAA"), f"> {line(1, 'AAAAA')}", line(1, "BBBBB"), line(2, "BBBBB")]
    made = dg.tally(lines, guess=guess)
    assert counts(made) == [2, 0, 0]
    assert "1 pasted again; 1 another guess of the same person (the first counts)" in made.words[1]


def test_every_wrong_symbol_and_every_exchange_of_neighbours_is_noticed() -> None:
    draw = random.Random(0)
    for _ in range(20):
        good = line(draw.randint(1, 9), "".join(draw.choices(SYMBOLS, k=5))).upper()
        for place in (place for place in range(3, len(good)) if good[place] != "-"):
            digit = good[place - 1] == good[place + 1 : place + 2] == "-"  # the number of the option
            for symbol in "0123456789" if digit else "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ":
                wrong = good[:place] + symbol + good[place + 1 :]
                found = read_guesses([wrong])
                assert wrong == good or (not found.guesses and len(found.mistyped) == 1), wrong
            left, right = good[place - 1], good[place]
            wrong = good[: place - 1] + right + left + good[place + 1 :]
            assert "-" in (left, right) or left == right or not read_guesses([wrong]).guesses, wrong


def test_lines_that_do_not_count_are_counted_and_said(guess: Any) -> None:
    cut, other = line(1, "AAAAA")[:-3], line(1, "BBBBB", question=question_code("Another?", OPTIONS))
    wrong = line(2, "CCCCC")[:-1] + ("2" if line(2, "CCCCC")[-1] != "2" else "3")
    made = dg.tally([line(3, "DDDDD"), cut, other, wrong, "hello", ""], guess=guess)
    assert counts(made) == [0, 0, 1]
    assert made.words[1] == (
        f"Lines that do not count: 1 of another question; 2 mistyped ({cut.upper()}, {wrong.upper()}); "
        "1 without a guess."
    )
    with pytest.raises(dg.DgpruneError, match=r"lines: .*none in 2 lines.*1 mistyped"):
        dg.tally([wrong, "hello"], guess=guess)
    with pytest.raises(dg.DgpruneError, match="none in 0 lines"):
        dg.tally("")


def test_lines_come_from_a_file_too(guess: Any, tmp_path: Path) -> None:
    path = tmp_path / "chat of the class.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"{line(1, 'AAAAA')}\r\n\r\n{line(2, 'BBBBB')}\xe9".encode("latin-1"))
    assert counts(dg.tally(path, guess=guess)) == counts(dg.tally(str(path), guess=guess)) == [1, 1, 0]
    path.write_text(line(3, "CCCCC"), encoding="utf-16")
    assert counts(dg.tally(path, guess=guess)) == [0, 0, 1]
    with pytest.raises(dg.DgpruneError, match="cannot be read"):
        dg.tally(tmp_path / "none.txt")
    with pytest.raises(dg.DgpruneError, match=r"chat\.txt cannot be read; give the path of a text file"):
        dg.tally(str(tmp_path / "chat.txt"))
    with pytest.raises(dg.DgpruneError, match=r"none in 1 line\."):
        dg.tally("a" * 5000)
    with pytest.raises(dg.DgpruneError, match=r"none in 1 line\."):
        dg.tally("a\0b")


def test_without_a_guess_the_question_of_most_lines_is_taken() -> None:
    other = question_code("Another?", OPTIONS)
    made = dg.tally([line(2, "AAAAA"), line(2, "BBBBB"), line(3, "CCCCC", question=other)])
    assert made.table["option"].tolist() == ["option 1", "option 2"] and counts(made) == [0, 2]
    assert CODE in made.question and "1 of another question" in made.words[1]


def test_two_questions_with_equally_many_lines_are_not_chosen_between(guess: Any) -> None:
    lines = [line(2, "AAAAA"), line(3, "CCCCC", question=question_code("Another?", OPTIONS))]
    with pytest.raises(dg.DgpruneError, match=rf"questions {CODE} and \w+ have equally many lines.*guess="):
        dg.tally(lines)
    assert counts(dg.tally(lines, guess=guess)) == [0, 1, 0]


def test_an_option_beyond_the_list_is_said(guess: Any) -> None:
    beyond = "1 with the number of an option that this question does not have"
    assert beyond in dg.tally([line(1, "AAAAA"), line(4, "BBBBB")], guess=guess).words[1]
    with pytest.raises(dg.DgpruneError, match=f"none in 1 line. Lines that do not count: {beyond}"):
        dg.tally([line(4, "BBBBB")], guess=guess)


def test_the_measured_answer_is_marked_only_once_it_is_shown(guess: Any) -> None:
    lines = [line(1, "AAAAA"), line(3, "BBBBB"), line(3, "CCCCC")]
    guess.reveal("mnist_m", wait=True)
    before = dg.tally(lines, guess=guess)
    assert before.words[0] == "3 people guessed." and not any(before.table["measured"])
    assert "← measured" not in json.dumps(before.chart.to_dict(), ensure_ascii=False)
    guess.set_state({"shown": True})
    after = dg.tally(lines, guess=guess)
    assert after.words[0] == "2 of 3 people guessed what was measured: mnist_m."
    picture, (shown, _) = dg.charts.svg(after.chart), after._repr_mimebundle_()
    assert "mnist_m  ← measured" in picture and "2 of 3" in picture
    assert "mnist_m" in shown["text/plain"] and "application/vnd.jupyter.widget-view+json" in shown
    assert len(after.words) == 1


def test_text_of_users_is_text() -> None:
    hostile = dg.predict("Which <script>alert(1)</script>?", ["<img src=x>", "b"])
    hostile.guess = "b"
    hostile.lock()
    picture = dg.charts.svg(dg.tally(str(hostile.line), guess=hostile).chart)
    assert "<script" not in picture and "<img" not in picture and "&lt;img" in picture
