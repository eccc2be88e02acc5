"""The strict reader: values of every type, every fault with its place, all faults at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from onnxq.errors import ConfigError, UnknownNameError, UsageError, did_you_mean
from onnxq.reading.reader import BAD, find, parse, read


@dataclass(frozen=True, kw_only=True)
class Side:
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int | tuple[int, int] | Side | None = None
    level: Literal["low", "high", 3] = "low"

    def __post_init__(self) -> None:
        if self.size == 0:
            raise UsageError("size must not be 0")
        if self.size == 1 and self.level == "high":
            raise ValueError("high needs more than 1")


@dataclass(frozen=True, kw_only=True)
class Base:
    kind: ClassVar[NotThereAtRunTime] = None  # type: ignore[name-defined]  # noqa: F821
    name: str = "x"


@dataclass(frozen=True, kw_only=True)
class Schema(Base):
    needed: int
    ratio: float = 1.0
    flag: bool = False
    where: Path | None = None
    inner: Inner = field(default_factory=Inner)
    pair: tuple[int, str] = (0, "")
    many: tuple[float, ...] = ()
    names: list[str] = field(default_factory=list)
    parts: Sequence[Inner] = ()
    table: Mapping[str, float] = field(default_factory=dict)
    free: Any = None
    either: float | str | None = None
    whole_first: float | int = 0
    first: Inner | Side | None = None
    derived: int = field(default=0, init=False)
    hidden: int = field(default=0, metadata={"yaml": False})


def faults(text: str, schema: type[Any] = Schema) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, schema, name="f")
    assert caught.value.exit_code == 2
    return str(caught.value).split("\n")


def test_every_type() -> None:
    value = read(
        """
        needed: 7
        name: a b
        ratio: 2
        flag: true
        where: some/file
        inner: {size: [3, 4], level: 3}
        pair: [1, one]
        many: [1, 2.5, 1e-3]
        names: [a, 'no', "3"]
        parts: [{size: 5}, {size: {height: 6}}]
        table: {a: 1, b: 0.5}
        free: {x: [1, true, null, {y: z}]}
        either: 0.5%
        whole_first: 3
        first: {width: 3}
        """,
        Schema,
    )
    assert value == Schema(
        needed=7,
        name="a b",
        ratio=2.0,
        flag=True,
        where=Path("some/file"),
        inner=Inner(size=(3, 4), level=3),
        pair=(1, "one"),
        many=(1.0, 2.5, 0.001),
        names=["a", "no", "3"],
        parts=(Inner(size=5), Inner(size=Side(height=6))),
        table={"a": 1.0, "b": 0.5},
        free={"x": [1, True, None, {"y": "z"}]},
        either="0.5%",
        whole_first=3,
        first=Side(width=3),
    )
    assert isinstance(value.ratio, float)
    assert isinstance(value.whole_first, int)


def test_anchors_and_nulls() -> None:
    value = read("needed: 1\nmany: &m [1]\nfree: *m\nwhere: ~\neither:\nfirst: null\n", Schema)
    assert (value.many, value.free, value.where, value.either, value.first) == ((1.0,), [1], None, None, None)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("nam: x", '2:1: the file has no key "nam": did you mean "name"?'),
        ("hidden: 3", "2:1: the file has no key "),
        ("derived: 3", "2:1: the file has no key "),
        ("name: a\nname: b", '3:1: the file has the key "name" twice, first in line 2: keep one'),
        ("name: 3", "2:7: name takes a text, not the number 3: write it in quotes"),
        ("name: no", "2:7: name takes a text, not no, which YAML takes for true or false: write it in quotes"),
        ("name: true", "2:7: name takes a text, not true: write it in quotes"),
        ("name: 2024-01-31", "2:7: name takes a text, not 2024-01-31, which YAML takes for a date: write it in quotes"),
        ("name:", "2:6: name takes a text, not nothing"),
        ("name: [a]", "2:7: name takes a text, not a list of 1"),
        ("name: {a: b}", "2:7: name takes a text, not a mapping"),
        (
            "flag: yes",
            "2:7: flag takes true or false, not yes, which YAML takes for true or false: write true or false",
        ),
        ("flag: 'true'", '2:7: flag takes true or false, not the text "true": leave the quotes out'),
        ("flag: 1", "2:7: flag takes true or false, not the number 1"),
        ("ratio: '0.5'", '2:8: ratio takes a number, not the text "0.5": leave the quotes out'),
        ("ratio: true", "2:8: ratio takes a number, not true"),
        ("ratio: fast", '2:8: ratio takes a number, not the text "fast"'),
        (
            "ratio: 1:30",
            "2:8: ratio takes a number, not 1:30, which YAML takes for a number in another notation: "
            "write it as a plain decimal number",
        ),
        ("where: ''", '2:8: where takes a path or nothing, not the text ""'),
        (
            "inner: {level: hihg}",
            '2:16: inner.level takes one of low, high, 3, not the text "hihg": did you mean "high"?',
        ),
        ("inner: {level: '3'}", '2:16: inner.level takes one of low, high, 3, not the text "3": did you mean "3"?'),
        (
            "inner: {level: no}",
            "2:16: inner.level takes one of low, high, 3, not no, which YAML takes for true or false: ",
        ),
        (
            "inner: {size: x}",
            "2:15: inner.size takes a whole number, a list of 2 (a whole number, a whole number), a mapping with keys "
            'out of height, width or nothing, not the text "x"',
        ),
        ("inner: {size: 2.5}", "2:15: inner.size takes a whole number, a list of 2 (a whole number, a whole number), "),
        ("inner: {size: [1, x]}", '2:19: inner.size[1] takes a whole number, not the text "x"'),
        ("inner: {size: [1]}", "2:15: inner.size takes a list of 2 (a whole number, a whole number), not a list of 1"),
        ("inner: {size: {heigth: 1}}", '2:16: inner.size has no key "heigth": did you mean "height"?'),
        ("inner: {size: 0}", "2:15: inner: size must not be 0"),
        ("inner: {size: 1, level: high}", "2:8: inner: high needs more than 1"),
        ("inner: x", '2:8: inner takes a mapping with keys out of size, level, not the text "x"'),
        ("pair: [1, 2]", "2:11: pair[1] takes a text, not the number 2: write it in quotes"),
        ("many: 3", "2:7: many takes a list (each a number), not the number 3"),
        ("many: [1, x]", '2:11: many[1] takes a number, not the text "x"'),
        ("names: [no]", "2:9: names[0] takes a text, not no, which YAML takes for true or false: write it in quotes"),
        ("parts: [{sise: 3}]", '2:10: parts[0] has no key "sise": did you mean "size"?'),
        ("table: {a: x}", '2:12: table.a takes a number, not the text "x"'),
        ("table: {1: 1}", "2:9: table has a key that is no text, the number 1: write it in quotes"),
        ("table: {[1]: 1}", "2:9: table has a key that is no text, a list of 1: write it in quotes"),
        ("table: [1]", "2:8: table takes a mapping, not a list of 1"),
        (
            "free: {a: [on]}",
            "2:12: free.a[0] takes a value, not on, which YAML takes for true or false: write it in quotes if it is a "
            "text",
        ),
        ("either: no", "2:9: either takes a number, a text or nothing, not no, which YAML takes for true or false: "),
        ("either: [1]", "2:9: either takes a number, a text or nothing, not a list of 1"),
        (
            "first: {deep: 3}",
            "2:8: first takes a mapping with keys out of size, level, a mapping with keys out of height",
        ),
        ("name: !mine x", "2:7: name has the tag !mine: leave it out"),
        ("free: &a [*a]", "2:7: free[0] holds itself (an alias to an enclosing anchor): write it out"),
        (
            "<<: {name: x}",
            "2:1: the file has a key that is no text, <<, which YAML takes for a special key: write it in",
        ),
    ],
)
def test_one_fault(line: str, fault: str) -> None:
    found = faults(f"needed: 1\n{line}\n")
    assert len(found) == 1, found
    assert found[0].startswith(f"f:{fault}")


def test_a_near_miss_of_each_trap_is_fine() -> None:
    value = read("needed: 1\nname: 'no'\nflag: false\nratio: 1e-3\nfree: [yesterday, 1.2.3]\n", Schema)
    assert (value.name, value.flag, value.ratio, value.free) == ("no", False, 0.001, ["yesterday", "1.2.3"])


def test_missing_keys() -> None:
    assert faults("name: x") == ['f:1:1: the file lacks the key "needed": add it']
    # the misspelt key is the missing one: one fault, not two
    assert faults("neded: 1") == ['f:1:1: the file has no key "neded": did you mean "needed"?']


def test_a_text_where_a_mapping_with_one_needed_key_is_wanted() -> None:
    @dataclass(frozen=True)
    class Outer:
        inside: Schema

    globals()["Outer"] = Outer
    assert faults("inside: 5x", Outer)[0].endswith('not the text "5x": write {needed: 5x}')


def test_all_faults_at_once_in_the_order_of_the_file() -> None:
    found = faults("zzz: 1\nneeded: x\ninner:\n  size: 0\n  level: 4\nmany: [a, b]\n")
    assert [f.split(": ")[0] for f in found] == ["f:1:1", "f:2:9", "f:4:9", "f:5:10", "f:6:8", "f:6:11"]


def test_a_refused_value_whose_cause_is_reported_already() -> None:
    @dataclass(frozen=True)
    class Picky:
        a: int = 0

        def __post_init__(self) -> None:
            if self.a == 0:
                raise UsageError("a must not be 0")

    globals()["Picky"] = Picky
    assert faults("a: x", Picky) == ['f:1:4: a takes a whole number, not the text "x"']
    assert faults("a: 0", Picky) == ["f:1:4: a must not be 0"]
    assert faults("{}", Picky) == ["f:1:1: a must not be 0"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "f:1:1: the file is empty: write at least one key"),
        ("# nothing\n", "f:1:1: the file is empty: write at least one key"),
        ("- a\n", "f:1:1: the file takes a mapping with keys out of name, needed, ratio, "),
        ("a: [1\nb: 2\n", "f:2:2: this is no YAML: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a: 1\n\tb: 2\n", "f:2:1: this is no YAML: "),
        ("a: *b\n", "f:1:4: this is no YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 1\n", "f:2:1: this is no YAML: expected a single document in the stream but found another"),
        ("a: \x07", "f is no YAML: unacceptable character #x0007"),
    ],
)
def test_no_yaml(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(ConfigError, match=rf"^there is no file {path}: check the path$"):
        read(path, Schema)
    path.write_text("needed: ä\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf'^{path}:1:9: needed takes a whole number, not the text "ä"$'):
        read(path, Schema)
    path.write_bytes(b"needed: \xff\n")
    with pytest.raises(ConfigError, match=rf"^{path} cannot be read as UTF-8 text \(.*\): check the file$"):
        read(path, Schema)
    path.write_text("needed: 3\n")
    assert read(path, Schema).needed == 3
    with pytest.raises(ConfigError, match=r"^<text>:1:1: the file lacks"):
        read("name: x", Schema)


@dataclass(frozen=True, kw_only=True)
class Fold:
    limit: int = 5


def lookup(name: str) -> type[Any]:
    if name != "fold":
        raise UnknownNameError(f'there is no pass "{name}": {did_you_mean(name, ["fold"])}')
    return Fold


def test_a_list_of_named_settings() -> None:
    reader, root = parse("passes: [fold, {fold: {limit: 7}}, {fold: }]")
    node = find(root, "passes")
    assert node is not None
    items = reader.read_named(node, lookup, "passes")
    reader.finish()
    assert items == (("fold", Fold()), ("fold", Fold(limit=7)), ("fold", Fold()))


def test_faults_of_named_settings() -> None:
    reader, root = parse("- fodl\n- fold: {limt: 7}\n- fold: {limit: x}\n- {fold: {}, b: {}}\n- 3\n", name="p")
    assert reader.read_named(root, lookup, "passes") is BAD
    with pytest.raises(ConfigError) as caught:
        reader.finish()
    assert str(caught.value).split("\n") == [
        'p:1:3: passes[0]: there is no pass "fodl": did you mean "fold"?',
        'p:2:10: fold has no key "limt": did you mean "limit"?',
        'p:3:17: fold.limit takes a whole number, not the text "x"',
        "p:4:3: passes[3] has 2 keys: write one `name: {setting: value}` per item",
        "p:5:3: passes[4] takes a text, not the number 3: write it in quotes",
    ]
    reader, root = parse("fold", name="p")
    assert reader.read_named(root, lookup, "passes") is BAD
    with pytest.raises(ConfigError, match=r'^p:1:1: passes takes a list, not the text "fold"$'):
        reader.finish()


def test_find() -> None:
    _, root = parse("a: {b: {c: 3}}")
    found = find(root, "a", "b", "c")
    assert found is not None
    assert found.value == "3"
    assert find(root, "a", "x") is None
    assert find(root, "a", "b", "c", "d") is None
