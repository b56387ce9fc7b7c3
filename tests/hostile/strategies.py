"""hypothesis strategies for whatever a structural schema allows, and for what it does not.

Everything is derived from the schema as the API server gets it: a new field is tested from the day it is there.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from runnerhub_operator.api.base import RULES

Schema = Mapping[str, Any]
Strategy = st.SearchStrategy[Any]

# What a person or a broken client writes: other scripts, directions, invisible and control characters, long texts.
TEXTS = (
    *(
        "",
        " ",
        "hub\n",
        "\x00",
        "\x7f",
        "héllo",
        "مرحبا",
        "日本語",
        "\U0001f469\u200d\U0001f467",
        "\u202e\u200b",
        "e\u0301",
    ),
    *("a" * 5000, "../..", "${x}", "{{ . }}", "'; drop table jobs; --", "!!python/object", "*", "&a", "~"),
    *("null", "true", "3", "1e3", "-1", "0x10"),
)
NUMBERS = (
    *(0, -1, 1, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30),
    *(0.5, 3.0, -0.0, 1e308),
)

texts = st.one_of(st.sampled_from(TEXTS), st.text(max_size=40))
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
json_values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a schema: path from its root, and what is allowed there."""

    path: tuple[str, ...]
    schema: Schema


def fields(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[Field]:
    """The schema's root and everything below it that has a fixed name."""
    yield Field(path, schema)
    for name, value in schema.get("properties", {}).items():
        yield from fields(value, (*path, name))


def words_of_rules(schema: Schema) -> list[list[str]]:
    """The words that each rule singles out, such as names that are refused."""
    found = {
        tuple(re.findall(r'"([a-z][^"\\^$]*)"', rule["rule"]))
        for field in fields(schema)
        for rule in field.schema.get(RULES, ())
    }
    return [list(words) for words in sorted(found) if words]


def _words(words: list[list[str]]) -> list[Strategy]:
    """Each rule's words as often as another's; a prefix with something behind it."""
    return [
        st.sampled_from(rule).map(lambda word: f"{word}x" if word.endswith("/") else word) for rule in words
    ]


def _patterns(what: str, *rules: Mapping[str, str]) -> list[str]:
    """Patterns that rules ask of something, such as `self.host` or the names of a map."""
    found = rf'{re.escape(what)}\.matches\("((?:[^"\\]|\\.)*)"\)'
    return [json.loads(f'"{text}"') for rule in rules for text in re.findall(found, rule["rule"])]


def _text(schema: Schema) -> Strategy:
    longest = schema.get("maxLength")
    if "pattern" in schema:
        allowed = st.one_of(
            _regex(schema["pattern"]), *(st.just(edge) for edge in schema.get("examples", ()))
        )
        return allowed if longest is None else allowed.filter(lambda text: len(text) <= longest)
    return st.one_of(st.text(max_size=min(longest or 60, 60)), *([st.just("ü" * longest)] if longest else []))


def _integer(schema: Schema) -> Strategy:
    low, high = schema.get("minimum"), schema.get("maximum")
    edges = [edge for edge in (low, high) if edge is not None]
    return st.one_of(st.integers(low, high), *([st.sampled_from(edges)] if edges else []))


def _map(schema: Schema, rules: tuple[Mapping[str, str], ...], words: list[list[str]]) -> Strategy:
    named = [_regex(pattern) for pattern in _patterns("name", *schema.get(RULES, ()), *rules)]
    invented = st.one_of(named) if named else st.text(max_size=20)
    keys = st.one_of(invented, invented, st.one_of(_words(words))) if words else invented
    values = st.one_of(valid(schema["additionalProperties"]), st.integers(1, 300).map(str))
    return st.dictionaries(keys, values, max_size=min(schema.get("maxProperties", 4), 4))


def _with_rules(name: str, schema: Schema, rules: tuple[Mapping[str, str], ...]) -> Schema:
    """The schema of a text with the pattern that a rule of its section asks of it, and the amount that one names."""
    if schema["type"] == "array" and schema["items"]["type"] == "string":
        told = [re.search(rf"self\.{name}\.all\((\w+),", rule["rule"]) for rule in rules]
        of_items = [text for found in told if found for text in _patterns(found[1], *rules)]
        return {**schema, "items": {**schema["items"], **({"pattern": of_items[0]} if of_items else {})}}
    if schema["type"] != "string":
        return schema
    asked = _patterns(f"self.{name}", *rules)
    bound = rf'quantity\(self\.{name}\)\.compareTo\(quantity\("([^"]+)"\)\)'
    edges = [text for rule in rules for text in re.findall(bound, rule["rule"])]
    return {**schema, **({"pattern": asked[0]} if asked else {}), "examples": edges}


@functools.cache
def _regex(pattern: str) -> Strategy:
    return st.from_regex(pattern, fullmatch=True)


def valid(
    schema: Schema, rules: tuple[Mapping[str, str], ...] = (), words: list[list[str]] | None = None
) -> Strategy:
    """What the schema allows, not minding the rules that span fields."""
    words = words_of_rules(schema) if words is None else words
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "object" and "additionalProperties" in schema:
        return _map(schema, rules, words)
    if kind == "object":
        below = tuple(schema.get(RULES, ()))
        inner = {
            name: valid(_with_rules(name, value, below), below, words)
            for name, value in schema.get("properties", {}).items()
        }
        needed = set(schema.get("required", ()))
        return st.fixed_dictionaries(
            {name: value for name, value in inner.items() if name in needed},
            optional={name: value for name, value in inner.items() if name not in needed},
        )
    if kind == "array":
        most = min(schema.get("maxItems", 3), 3)
        return st.lists(valid(schema["items"], (), words), min_size=schema.get("minItems", 0), max_size=most)
    simple = {"boolean": st.booleans(), "number": st.floats(allow_nan=False, allow_infinity=False)}
    if kind == "string" and schema.get("format") == "date-time":
        return st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))
    return simple[kind] if kind in simple else _text(schema) if kind == "string" else _integer(schema)


def _beyond(schema: Schema) -> list[Any]:
    """Values just outside the bounds of a schema."""
    found: list[Any] = []
    if "minimum" in schema:
        found.append(schema["minimum"] - 1)
    if "maximum" in schema:
        found += [
            schema["maximum"] + 1,
            schema["maximum"] + 0.5,
            str(schema["maximum"]),
            float(schema["maximum"]),
        ]
    if "maxLength" in schema:
        found += ["a" * (schema["maxLength"] + 1), "ü" * schema["maxLength"]]
    if "maxProperties" in schema:
        found.append({f"a{number}": "1" for number in range(schema["maxProperties"] + 1)})
    if "enum" in schema:
        found += [schema["enum"][0].swapcase(), f"{schema['enum'][0]} "]
    return found


def _spoilt_object(schema: Schema) -> Strategy:
    """A section with a field that does not exist: invented, or a real one in another spelling."""
    names = list(schema.get("properties", {}))
    spellings = [
        other for name in names for other in (_snake(name), name.upper(), f"{name} ") if other not in names
    ]
    wrong = st.one_of(st.sampled_from(spellings), texts) if spellings else texts
    return st.dictionaries(wrong, json_values, min_size=1, max_size=2)


def _snake(name: str) -> str:
    return re.sub("([A-Z])", lambda letter: f"_{letter.group(1).lower()}", name)


def hostile(schema: Schema) -> Strategy:
    """Mostly what the schema does not allow."""
    options: list[Strategy] = [leaves, json_values]
    if beyond := _beyond(schema):
        options += [st.sampled_from(beyond)] * 2
    if schema["type"] == "string":
        options.append(texts)
    if "additionalProperties" in schema:
        options.append(st.dictionaries(texts, st.one_of(texts, leaves), max_size=3))
        options.append(st.dictionaries(texts, st.sampled_from(("", "1")), min_size=1, max_size=2))
    elif schema["type"] == "object":
        options.append(_spoilt_object(schema))
    return st.one_of(options)


def spoil(value: Any, path: tuple[str, ...], with_what: Any) -> Any:
    """A copy of the value with something else at a path; a section at the path takes in another one's fields."""
    if not path:
        merge = isinstance(value, dict) and isinstance(with_what, dict)
        return {**value, **with_what} if merge else with_what
    changed = copy.copy(value) if isinstance(value, dict) else {}
    changed[path[0]] = spoil(changed.get(path[0], {}), path[1:], with_what)
    return changed


Change = tuple[tuple[str, ...], Any]


def _changed(value: Any, changes: list[Change]) -> Any:
    for path, with_what in changes:
        value = spoil(value, path, with_what)
    return value


def _settings(
    schema: Schema, words: list[list[str]], rules: tuple[Mapping[str, str], ...] = ()
) -> list[Strategy]:
    """One strategy of a valid value for each field; a section with required fields is one field."""
    found: list[Strategy] = []

    def collect(node: Schema, path: tuple[str, ...], above: tuple[Mapping[str, str], ...]) -> None:
        if "properties" in node and not node.get("required"):
            below = tuple(node.get(RULES, ()))
            for name, value in node["properties"].items():
                collect(_with_rules(name, value, below), (*path, name), below)
        else:
            found.append(st.tuples(st.just(path), valid(node, above, words)))

    collect(schema, (), rules)
    return found


def _loose(schema: Schema, tight: Strategy, words: list[list[str]]) -> Strategy:
    """What the schema of a field allows without the rules: other texts and other names than they ask for."""
    if "additionalProperties" in schema:
        names = st.one_of(texts, st.one_of(_words(words))) if words else texts
        return st.one_of(tight, st.dictionaries(names, valid(schema["additionalProperties"]), max_size=2))
    if schema["type"] == "string" and "pattern" not in schema and "enum" not in schema:
        return st.one_of(tight, texts)
    return tight


def _on_rules(schema: Schema, words: list[list[str]]) -> list[Strategy]:
    """For each rule, values of just those fields that it speaks of, or of some of them."""
    found: list[Strategy] = []
    for section in fields(schema):
        rules = tuple(section.schema.get(RULES, ()))
        inside = section.schema.get("properties", {})
        for rule in rules if inside else ():
            spoken_of = {*re.findall(r"self\.([a-zA-Z]+)", rule["rule"]), *section.schema.get("required", ())}
            values = {
                name: _loose(inside[name], valid(_with_rules(name, inside[name], rules), rules, words), words)
                for name in sorted(spoken_of & set(inside))
            }
            some = st.one_of(st.fixed_dictionaries(values), st.fixed_dictionaries({}, optional=values))
            found.append(st.tuples(st.just(section.path), some))
    return found


def any_values(schema: Schema) -> Strategy:
    """A few valid fields, with or without spoilt places; what rules speak of; all fields; something else altogether."""
    words = words_of_rules(schema)
    few = st.lists(st.one_of(_settings(schema, words)), max_size=6)
    places = [field for field in fields(schema) if field.path]
    faults = st.lists(
        st.one_of([st.tuples(st.just(field.path), hostile(field.schema)) for field in places]),
        min_size=1,
        max_size=3,
    )
    sections = [field for field in fields(schema) if "properties" in field.schema]
    surplus = st.one_of([st.tuples(st.just(field.path), _spoilt_object(field.schema)) for field in sections])
    sparse = st.builds(_changed, st.just({}), few)
    kinds = [
        *[sparse] * 5,
        *[st.one_of(_on_rules(schema, words)).map(lambda change: _changed({}, [change]))] * 3,
        *[st.builds(_changed, sparse, faults)] * 3,
        st.builds(_changed, sparse, surplus.map(lambda change: [change])),
        valid(schema),
        hostile(schema),
    ]
    return st.sampled_from(range(len(kinds))).flatmap(lambda kind: kinds[kind])
