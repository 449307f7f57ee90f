"""What users may write in SQL: one expression over the columns of one table, which is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb

from mgs.errors import UserError
from mgs.filtering.score_files import TABLE

KINDS = {  # of expressions, by DuckDB's names
    *("COLUMN_REF", "VALUE_CONSTANT", "TYPE", "OPERATOR_CAST", "CASE_EXPR", "FUNCTION"),
    *("CONJUNCTION_AND", "CONJUNCTION_OR", "OPERATOR_NOT", "OPERATOR_COALESCE"),
    *("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL", "OPERATOR_NULLIF", "COMPARE_IN", "COMPARE_NOT_IN"),
    *("COMPARE_BETWEEN", "COMPARE_NOT_BETWEEN", "COMPARE_DISTINCT_FROM", "COMPARE_NOT_DISTINCT_FROM"),
    *("COMPARE_EQUAL", "COMPARE_NOTEQUAL", "COMPARE_LESSTHAN", "COMPARE_GREATERTHAN"),
    *("COMPARE_LESSTHANOREQUALTO", "COMPARE_GREATERTHANOREQUALTO"),
}
OPERATORS = {"+", "-", "*", "/", "//", "%", "^", "**", "||", "~~", "!~~", "~~*", "!~~*", "~~~"}  # ~~: LIKE
OPERATORS |= {"like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"}
FUNCTIONS = (
    *("abs", "ceil", "contains", "ends_with", "exp", "floor", "greatest", "least", "left", "length", "ln", "log"),
    *("lower", "nullif", "pow", "regexp_full_match", "regexp_matches", "replace", "right", "round", "sqrt"),
    *("starts_with", "substr", "trim", "upper"),
)


def check_expression(connection: duckdb.DuckDBPyConnection, text: str, columns: Sequence[str], option: str) -> set[str]:
    """The columns that an SQL expression reads, by their own names. It is parsed here, and not executed.

    Raises `UserError` for anything but one expression of columns, constants, operators and plain functions: no
    statement, subquery, aggregate, or function that reads a file, the system or a setting.
    """
    tree = parse(connection, text, option, columns)
    named = {name.casefold(): name for name in columns}
    found = set()
    for node in walk(tree):
        if "class" not in node:
            continue
        if node["type"] not in KINDS:
            kind = node["class"].lower().replace("_", " ")
            raise UserError(f"{option} {text}: a {kind} is not allowed; write one expression over the columns")
        if node["type"] == "COLUMN_REF":
            name = ".".join(node["column_names"])
            if name.casefold() not in named:
                remedy = "texts stand in single quotes" if '"' in text else "see docs/scoring.md"
                raise UserError(f"{option} {text}: no column {name}; there are {', '.join(columns)}; {remedy}")
            found.add(named[name.casefold()])
        if node["type"] == "FUNCTION" and node["function_name"].lower() not in OPERATORS | set(FUNCTIONS):
            allowed = f"there are {', '.join(FUNCTIONS)}"
            raise UserError(f"{option} {text}: no function {node['function_name']} here; {allowed}")
    return found


def parse(connection: duckdb.DuckDBPyConnection, text: str, option: str, columns: Sequence[str]) -> Any:
    """DuckDB's tree of an expression. What is around it must be what is around the plainest of expressions."""
    try:
        parsed, plain = (load_tree(connection, f"SELECT {words}\nFROM {TABLE}") for words in (text, "true"))
    except RecursionError:
        raise UserError(f"{option} {text}: too deeply nested; write it with fewer brackets") from None
    if parsed["error"]:
        reason = parsed["error_message"].replace('at or near "FROM"', "at its end")
        there = f"the columns are {', '.join(columns)}"
        raise UserError(f"{option} {text}: {reason}; write one expression as in SQL; {there}")
    trees = [tree.pop("select_list") for tree in (only_node(parsed), only_node(plain)) if tree]
    if len(trees) < 2 or len(trees[0]) != 1 or trees[0][0]["alias"] or parsed != plain:
        raise UserError(f"{option} {text}: is more than one expression; join conditions with and, or")
    return trees[0][0]


def only_node(parsed: dict[str, Any]) -> dict[str, Any] | None:
    """The query in DuckDB's answer, if it is one plain query."""
    statements = parsed["statements"]
    return statements[0]["node"] if len(statements) == 1 and "select_list" in statements[0]["node"] else None


def load_tree(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """DuckDB's parse of a text, without the places in it."""
    ((answer,),) = connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [sql]).fetchall()
    tree = json.loads(answer)
    for node in walk(tree):
        node.pop("query_location", None)
        node.pop("query_location_length", None)
    return tree


def walk(tree: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value."""
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from walk(part)
