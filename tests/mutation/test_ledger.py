"""The book-keeping of mutation testing; the mutants themselves are run by `make test-slow` and `make mutation`."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ledger import HERE, PASSES, compare, entry, judges, read_survivors

A, B, C = (("a.py", "f", "- x\n+ y", n) for n in (1, 2, 3))
OTHER = ("b.py", "f", "- x\n+ y", 1)


def test_a_survivor_must_be_listed_and_a_listed_one_must_survive() -> None:
    assert compare({A, B}, {A}, {A: "why"}, complete=True) == (set(), set())
    assert compare({A, B}, {A, B}, {A: "why"}, complete=True) == ({B}, set())
    assert compare({A, B}, set(), {A: "why"}, complete=False) == (set(), {A})


def test_what_does_not_exist_any_more_is_told_of_complete_files_only() -> None:
    assert compare({A}, {A}, {A: "why", C: "why", OTHER: "why"}, complete=True) == (set(), {C})
    assert compare({A}, {A}, {A: "why", C: "why", OTHER: "why"}, complete=False) == (set(), set())


def test_an_entry_is_read_as_it_was_printed(tmp_path: Path) -> None:
    path = tmp_path / "survivors.yaml"
    path.write_text(entry(A) + " why\n" + entry(B) + " why not\n", encoding="utf-8")
    assert read_survivors(path) == {A: "why", B: "why not"}


@pytest.mark.parametrize(("text", "message"), [(entry(A), "no reason"), ((entry(A) + " w\n") * 2, "twice")])
def test_faults_of_the_list(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "survivors.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_survivors(path)


def test_the_list_speaks_of_recorded_files_and_the_figures_agree() -> None:
    record = yaml.safe_load((HERE / "record.yaml").read_text(encoding="utf-8"))
    listed = read_survivors(HERE / "survivors.yaml")
    assert all((PASSES / name).is_file() for name in record)
    assert {key[0] for key in listed} <= record.keys()
    for name, row in record.items():
        assert row["mutants"] == row["killed"] + row["justified"], name
        assert row["justified"] == sum(key[0] == name for key in listed), name


def test_the_page_gives_the_recorded_figures(root: Path) -> None:
    record = yaml.safe_load((HERE / "record.yaml").read_text(encoding="utf-8"))
    made, killed, justified = (sum(row[k] for row in record.values()) for k in ("mutants", "killed", "justified"))
    page = " ".join((root / "docs" / "mutation.md").read_text(encoding="utf-8").split())
    line = f"{len(record)} files, {made} mutants: {killed} killed, {justified} survive and are justified"
    assert line in page, f"docs/mutation.md must say: {line}"


def test_a_pass_is_judged_by_its_own_tests() -> None:
    assert judges("cancel_dq_q.py") == {"test_cancel_dq_q.py"}
    assert judges("_qdq.py") is None
