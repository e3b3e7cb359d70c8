"""The hash of the code that makes something: what says that a column was made by other code and must be made again.

The hash covers the definitions (functions, classes, constants) that can run when a named one runs: it starts from the
roots and follows the names that each definition uses, through our own modules and through imports inside functions.
A comment, a docstring, the formatting or a definition that nothing on this road uses does not count. A class counts
as a whole, and so does a module that is handed on as a value. A text that is code for another process (``python -c``)
is read for its imports. Annotations are not followed: what a function is given by its caller (settings, say) has to be
a root of its own.

The source is read from the files of the installed package and parsed; nothing of it is imported or run.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

# The packages whose source counts. The versions of all others count where they are named.
OWN = ("models", "pipelines", "tasks", "infra")
# Ours too, but they carry what is made and make nothing: how a shard is written or uploaded does not make it stale.
CARRIERS = frozenset(
    [
        *(f"pipelines.{name}" for name in ("beam", "books", "dataset", "failures", "keyed", "ledger", "manifest")),
        *(f"pipelines.{name}" for name in ("parts", "provenance", "records", "state", "storage", "tables")),
        *("pipelines.code_hash", "models.errors", "models.loading"),
    ]
)

_SIDE_EFFECTS = ""  # the name under which a module keeps statements that run when it is imported


@dataclass(frozen=True)
class Closure:
    """What a root's code consists of.

    ``definitions``: "module:name" -> normalised source. ``packages``: top-level names of other packages used.
    """

    definitions: dict[str, str]
    packages: frozenset[str]


def code_hash(roots: Sequence[str], packages: Sequence[str] = ()) -> str:
    """Returns 16 hex digits: the hash of the code behind the roots and of the versions of packages.

    Args:
        roots: dotted names of our own: "pipelines.stages.speech.normalise", or a module as a whole.
        packages: distributions that decide the result with their version, such as "pocketsphinx".

    Raises:
        LookupError: a root or a name that the code uses cannot be found.
    """
    digest = hashlib.sha256()
    for name, source in sorted(closure(tuple(sorted(roots))).definitions.items()):
        digest.update(f"{name}\n{source}\n".encode())
    for name in sorted(set(packages)):
        digest.update(f"{name}=={package_version(name)}\n".encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=128)
def closure(roots: tuple[str, ...]) -> Closure:
    """Collects the definitions behind the roots, once a process."""
    found: dict[str, str] = {}
    packages: set[str] = set()
    todo = [_locate(root) for root in roots]
    seen = set(todo)
    while todo:
        module, name = todo.pop()
        for next_module, next_name in _uses(module, name, found, packages):
            if (next_module, next_name) not in seen:
                seen.add((next_module, next_name))
                todo.append((next_module, next_name))
    return Closure(found, frozenset(packages))


@functools.lru_cache(maxsize=64)
def package_version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def forget() -> None:
    """Forgets what was read, for whoever changes the source under a running process."""
    closure.cache_clear()
    _module.cache_clear()


# --- Modules ---


@dataclass
class _Module:
    """A module's top level: name -> the statements that define it, and what its imports bind."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # name -> module, name in it or None


def module_file(module: str) -> str | None:
    """Returns the source file of one of our modules, found without importing anything; None if there is none."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        base = os.path.join(folder, *rest)
        for path in (f"{base}.py", os.path.join(base, "__init__.py")):
            if os.path.isfile(path):
                return path
    return spec.origin if not rest and not spec.submodule_search_locations else None


def module_source(module: str) -> str | None:
    """Returns a module's source text; None if it has none (no such module, or a folder without an __init__.py)."""
    path = module_file(module)
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


@functools.cache
def _module(name: str) -> _Module | None:
    source = module_source(name)
    if source is None:
        return None
    out = _Module()
    for statement in _WithoutDocstrings().visit(ast.parse(source)).body:
        _sort_statement(statement, name, out)
    return out


def _sort_statement(statement: ast.stmt, module: str, out: _Module) -> None:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        out.imports.update(_bindings(statement, module))
        return
    if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
        return
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names = [statement.name]
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        # X[1] = 2 and x.y = 2 change what is there: they run with the module.
        names = (
            [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
            if all(isinstance(node, ast.Name | ast.Tuple | ast.List | ast.Starred) for node in targets)
            else []
        )
    else:
        # An `if` or `try` at the top level: its parts define names, and it runs as a whole.
        names = []
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                out.imports.update(_bindings(node, module))
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.append(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.append(node.id)
        names.append(_SIDE_EFFECTS)
    for name in names or [_SIDE_EFFECTS]:
        out.definitions.setdefault(name, []).append(statement)


def _bindings(node: ast.Import | ast.ImportFrom, module: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yields the names that an import binds: name -> (module, name in it or None)."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.split(".")[0]
            yield (alias.asname, (alias.name, None)) if alias.asname else (top, (top, None))
        return
    source = node.module or ""
    if node.level:
        package = module if (module_file(module) or "").endswith("__init__.py") else module.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        source = f"{package}.{source}".strip(".")
    for alias in node.names:
        yield alias.asname or alias.name, (source, alias.name)


# --- Names ---


def _locate(root: str) -> tuple[str, str | None]:
    """ "a.b.c" -> the module a.b.c as a whole, or the name c of the module a.b."""
    if _module(root) is not None:
        return root, None
    module, _, name = root.rpartition(".")
    if module and _module(module) is not None:
        return module, name
    raise LookupError(f"code hash: no module or definition {root!r}")


def _uses(module: str, name: str | None, found: dict[str, str], packages: set[str]) -> Iterator[tuple[str, str | None]]:
    """Notes one definition in ``found`` and yields the (module, name) pairs that it uses."""
    parsed = _module(module)
    if parsed is None or module in CARRIERS:
        return
    if name is None:
        yield from ((module, each) for each in parsed.definitions)
        return
    if name not in parsed.definitions:
        if name in parsed.imports:  # passed on from another module
            yield from _resolve(*parsed.imports[name], (), packages)
        elif name != _SIDE_EFFECTS:
            raise LookupError(f"code hash: module {module} defines no {name!r}")
        return
    statements = parsed.definitions[name]
    found[f"{module}:{name}"] = "\n".join(ast.dump(statement, annotate_fields=False) for statement in statements)
    # Importing a module runs it and the packages that it is in.
    parts = module.split(".")
    yield from ((".".join(parts[:end]), _SIDE_EFFECTS) for end in range(1, len(parts) + 1))
    for statement in statements:
        local: dict[str, tuple[str, str | None]] = {}
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                local.update(_bindings(node, module))
            for bound in _imports_of_text(node, module):
                yield from _resolve(*bound, (), packages)
        for used, *attributes in _names(statement):
            bound = local.get(used) or parsed.imports.get(used)
            if bound is not None:
                yield from _resolve(*bound, attributes, packages)
            elif used in parsed.definitions:
                yield module, used


def _imports_of_text(node: ast.AST, module: str) -> list[tuple[str, str | None]]:
    """What a text imports that is code for another process (``python -c``)."""
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value):
        return []
    try:
        tree = ast.parse(node.value)
    except (SyntaxError, ValueError):
        return []
    found = [part for part in ast.walk(tree) if isinstance(part, ast.Import | ast.ImportFrom)]
    return [bound for part in found for _, bound in _bindings(part, module)]


def _resolve(
    module: str, name: str | None, attributes: Sequence[str], packages: set[str]
) -> Iterator[tuple[str, str | None]]:
    """What an imported name and the attributes read from it stand for."""
    if module.split(".")[0] not in OWN:
        packages.add(module.split(".")[0])
        return
    if name is not None:
        if _module(f"{module}.{name}") is None:
            yield module, name
            return
        module = f"{module}.{name}"
    attributes = list(attributes)
    while attributes and _module(f"{module}.{attributes[0]}") is not None:
        module = f"{module}.{attributes.pop(0)}"
    yield module, attributes[0] if attributes else None


def _names(statement: ast.stmt) -> Iterator[list[str]]:
    """Yields every name that a statement reads, with the attributes read from it: ``np.linalg.norm`` -> 3 words."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name):
            yield [node.id]
            continue
        if isinstance(node, ast.Attribute):
            words, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                words.append(base.attr)
                base = base.value
            if isinstance(base, ast.Name):
                yield [base.id, *reversed(words)]
                continue
        skipped = _annotations(node)
        todo += [child for child in ast.iter_child_nodes(node) if all(child is not one for one in skipped)]


def _annotations(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.returns] if node.returns else []
    if isinstance(node, ast.arg | ast.AnnAssign):
        return [node.annotation] if node.annotation else []
    return []


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr):
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node
