"""A chapter's parameters: defaults from its parameters cell, ranges and relations from its front
matter."""

from __future__ import annotations

import ast
import operator
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dlnlib.errors import BadInput, BadParameter, shortened

__all__ = ["Parameter", "check", "check_relations", "described", "read", "relations"]

WANTED = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
DATA_WORDS = {
    "needed": "a data set",
    "optional": 'a data set, "" for none',
    "list": 'data sets separated by semicolons, "" for none',
}
# characters of a value: no literal that a reader types is longer, and deep nesting ends Python's
# parser
LONGEST = 300


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameters cell: its default, what it is, and the values that it may
    have.

    `least` and `most` bound a number (as written, so that they are printed as written); `choices`
    lists the values; `data` says that a data set is named: "needed", "optional" or "list".
    """

    name: str
    default: object
    comment: str
    least: float | str | None = None
    most: float | str | None = None
    choices: tuple = ()
    data: str | None = None

    @property
    def allowed(self) -> str:
        """The values it may have, in words; empty when every value of its type will do."""
        if self.choices:
            return " or ".join(str(choice) for choice in self.choices)
        if self.data:
            return DATA_WORDS[self.data]
        return "" if self.least is None else f"{self.least} to {self.most}"


def read(source: str, front: Mapping, file: str) -> tuple[Parameter, ...]:
    """The parameters in a cell of NAME = LITERAL lines, with the ranges of the front matter's
    `parameters`."""
    ranges = front.get("parameters") or {}
    if not isinstance(ranges, Mapping):
        raise BadParameter(f"{file}: `parameters` in the front matter must map names to ranges")
    found = _assignments(source, file)
    for name, allowed in ranges.items():
        known = isinstance(allowed, Mapping) and set(allowed) <= {
            "least",
            "most",
            "choices",
            "data",
        }
        if name not in found or not known:
            wanted = "a parameter's name and least, most, choices or data"
            raise BadParameter(f"{file}: `{name}: {allowed}` in the front matter, needed {wanted}")
        _check_range(name, found[name][0], allowed, file)
    return tuple(_parameter(name, *found[name], ranges.get(name, {})) for name in found)


def _check_range(name: str, default, allowed: Mapping, file: str) -> None:
    """The range of one parameter makes sense, and its default lies within."""
    where = f"{file}: `{name}: {dict(allowed)}` in the front matter"
    if not ("choices" in allowed or "data" in allowed or {"least", "most"} <= set(allowed)):
        raise BadParameter(f"{where}, needed both ends, least and most")
    if "choices" in allowed and not (
        isinstance(allowed["choices"], list) and default in allowed["choices"]
    ):
        raise BadParameter(
            f"{where}, needed a list of choices with the default {default!r} among them"
        )
    if "data" in allowed and not (
        allowed["data"] in tuple(DATA_WORDS) and isinstance(default, str)
    ):
        raise BadParameter(f"{where}, needed {', '.join(DATA_WORDS)}, and a text as default")
    if "least" in allowed:
        try:
            within = float(allowed["least"]) <= default <= float(allowed["most"])
        except (TypeError, ValueError):
            within = False
        if not within or isinstance(default, bool):
            raise BadParameter(f"{where}, needed numbers with the default {default!r} between them")


def relations(found, parameters: Sequence[Parameter], file: str) -> tuple[str, ...]:
    """The front matter's `requires`, each a relation that the defaults fulfil."""
    if found is not None and not (
        isinstance(found, list) and all(isinstance(text, str) for text in found)
    ):
        wanted = "a list of texts such as `2 * rank < width`"
        raise BadParameter(f"{file}: `requires: {found}` in the front matter, needed {wanted}")
    defaults = {parameter.name: parameter.default for parameter in parameters}
    for text in found or ():
        try:
            holds = _evaluate(ast.parse(text, mode="eval").body, defaults)
        except (
            SyntaxError,
            ValueError,
            KeyError,
            TypeError,
            ArithmeticError,
            RecursionError,
            BadParameter,
        ) as err:
            raise BadParameter(
                f"{file}: `requires: {text}` in the front matter cannot be evaluated ({err})"
            ) from err
        if not holds:
            raise BadParameter(
                f"{file}: `requires: {text}` in the front matter does not hold for the defaults"
            )
    return tuple(found or ())


def _parameter(name: str, default, comment: str, allowed: Mapping) -> Parameter:
    choices = tuple(allowed.get("choices", ()))
    return Parameter(
        name,
        default,
        comment,
        allowed.get("least"),
        allowed.get("most"),
        choices,
        allowed.get("data"),
    )


def _assignments(source: str, file: str) -> dict[str, tuple[object, str]]:
    """Default and comment of each line of a parameters cell."""
    lines, found = source.splitlines(), {}
    try:
        body = ast.parse(source).body
    except SyntaxError as err:
        raise BadParameter(
            f"{file}: the parameters cell does not parse: {err.msg} in line {err.lineno}"
        ) from err
    except (ValueError, RecursionError, MemoryError) as err:
        raise BadParameter(f"{file}: the parameters cell does not parse: {err}") from err
    for node in body:
        target = (
            node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        )
        try:
            default = ast.literal_eval(node.value)
            name = target.id
        except (ValueError, AttributeError, TypeError, RecursionError) as err:
            line = lines[node.lineno - 1]
            raise BadParameter(
                f"{file}: the parameters cell may only hold NAME = LITERAL lines: {line!r}"
            ) from err
        rest = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        found[name] = default, rest.partition("#")[2].strip()
    return found


def check(parameter: Parameter, value):
    """`value` as the type of the default and within the range; raises BadParameter naming value,
    range and default."""
    value = _typed(parameter, value)
    if parameter.choices and value not in parameter.choices:
        raise _refused(parameter, value, f"{parameter.allowed} is needed")
    if parameter.least is not None and not float(parameter.least) <= value <= float(parameter.most):
        raise _refused(parameter, value, f"{parameter.allowed} is needed")
    return _usable(parameter, value) if parameter.data else value


def _typed(parameter: Parameter, value):
    kind = type(parameter.default)
    most = 10 * LONGEST if parameter.data else LONGEST  # a path, and the names of columns
    if isinstance(value, str) and len(value) > most:
        raise BadParameter(
            f"{parameter.name} has {len(value)} characters, at most {most} can be read"
        )
    try:
        if isinstance(value, str) and kind is not str:
            value = (
                {"true": True, "false": False}.get(value.lower(), value)
                if kind is bool
                else _literal(value)
            )
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind and parameter.default is not None:
            raise ValueError
    except (ValueError, SyntaxError, OverflowError, RecursionError, MemoryError) as err:
        raise _refused(
            parameter, value, f"{WANTED.get(kind, f'a {kind.__name__}')} is needed"
        ) from err
    return value


def _literal(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return float(text)  # "1e3" is a literal, "inf" and "nan" are not


def _refused(parameter: Parameter, value, needed: str) -> BadParameter:
    words = parameter.comment
    if parameter.allowed and needed.startswith(parameter.allowed):
        words = words.removeprefix(f"{parameter.allowed}: ")  # the range is said once
    about = f" ({words})" if words else ""
    shown = shortened(repr(value))
    return BadParameter(
        f"{parameter.name} = {shown}: {needed}{about}; the default is {parameter.default!r}"
    )


def check_relations(relations: Sequence[str], values: Mapping[str, object]) -> None:
    """Each relation between parameters, such as "2 * rank < width", holds; raises BadParameter
    naming both sides."""
    for relation in relations:
        if not _evaluate(ast.parse(relation, mode="eval").body, values):
            nodes = [
                n
                for n in ast.walk(ast.parse(relation))
                if isinstance(n, ast.Name) and n.id in values
            ]
            names = [node.id for node in sorted(nodes, key=lambda node: node.col_offset)]
            found = ", ".join(f"{name} = {values[name]}" for name in dict.fromkeys(names))
            raise BadParameter(f"{found}: {relation} is needed; change one of them")


ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
ORDER = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _evaluate(node: ast.AST, values: Mapping[str, object]):
    """Comparisons of sums and products of parameters and numbers, `min`, `max`, `and`, `or`:
    nothing else is run."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return values[node.id]
        case ast.BinOp():
            return ARITHMETIC[type(node.op)](
                _evaluate(node.left, values), _evaluate(node.right, values)
            )
        case ast.BoolOp():
            terms = [_evaluate(term, values) for term in node.values]
            return all(terms) if isinstance(node.op, ast.And) else any(terms)
        case ast.Call(func=ast.Name(id="min" | "max" as name)):
            return {"min": min, "max": max}[name](_evaluate(term, values) for term in node.args)
        case ast.Compare():
            sides = [_evaluate(side, values) for side in (node.left, *node.comparators)]
            pairs = zip(node.ops, sides, sides[1:], strict=False)
            return all(ORDER[type(order)](left, right) for order, left, right in pairs)
    raise BadParameter(
        f"relation {ast.unparse(node)}: only comparisons of parameters and numbers are understood"
    )


def described(parameters: Sequence[Parameter], values: Mapping[str, object]) -> dict[str, str]:
    """For each of these values that names data: what the data are and what was done to them, in one
    line."""
    told = {}
    for parameter in parameters:
        if parameter.data and values.get(parameter.name):
            with _some_folder():
                from dlnlib.data.sources import load

            names = _names(parameter, values[parameter.name])
            told[parameter.name] = " | ".join(
                f"{data.name}: {data.sentence}" for data in map(load, names)
            )
    return told


def _usable(parameter: Parameter, spec: str) -> str:
    """`spec` if it loads, with a file's path made absolute: the kernel runs in another folder."""
    if not spec.strip() and parameter.data != "needed":
        return ""
    return "; ".join(_loaded(parameter.name, name) for name in _names(parameter, spec))


def _names(parameter: Parameter, spec: str) -> list[str]:
    names = spec.split(";") if parameter.data == "list" else [spec]
    names = [name.strip() for name in names]
    return [name for name in names if name or parameter.data == "needed"]


def _loaded(parameter: str, name: str) -> str:
    with _some_folder():
        from dlnlib.data.sources import absolute, load

    try:
        name = absolute(name)
        load(name)
    except OSError as err:  # no working folder
        raise BadParameter(
            f"{parameter} = {shortened(name)!r}: {err.strerror}; give a whole path"
        ) from err
    except BadInput as err:
        raise type(err)(f"{parameter}: {err}") from err
    return name


@contextmanager
def _some_folder() -> Iterator[None]:
    """A working folder that is there: torch's libraries cannot be loaded in one that was
    deleted."""
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
    try:
        if os.fstat(here).st_nlink == 0:
            os.chdir(tempfile.gettempdir())
        yield
    finally:
        os.fchdir(here)
        os.close(here)
