"""The laws of the house: who may import whom, and what may not be written at all."""

import ast
import graphlib
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = (  # Bottom to top. A folder imports itself and the floors below, never a neighbour.
    "core",
    "privacy secagg",
    "codecs aggregators optimizers schedules staleness data",
    "local",
    "engines",
    "deploy",
    "remote train",
    "algorithms attacks audit adapters",
    "recipes web cli evaluation",
    "__init__ __main__",
)
HEIGHT = {folder: height for height, names in enumerate(FLOORS) for folder in names.split()}
LEAN = ("privacy", "secagg")  # Of ours they import core.errors alone, and never torch.
HOMES = {  # The only files that import these.
    "uvicorn httpx starlette": ("deploy/http.py",),
    "ray": ("engines/ray.py",),
    "importlib runpy": ("cli.py", "cli/", "__init__.py"),
    "pickle cloudpickle dill marshal shelve torch.load": (),
}
HARMLESS = ("importlib.metadata", "importlib.resources")


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def folder_of(module):
    return module.split(".")[1] if "." in module else "__init__"


FILES = {module_of(path): path for path in sorted(ROOT.glob("folkmoot/**/*.py"))}
TEXTS = {module: path.read_text("utf-8") for module, path in FILES.items()}
NODES = {module: list(ast.walk(ast.parse(text))) for module, text in TEXTS.items()}


def imports(module):
    """Every name that a module imports, wherever it does so, in full: (line, name)."""
    inside = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in NODES[module]:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), inside)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def within(name, *roots):
    """Whether a dotted name is one of the roots, or lies in one."""
    return any(f"{name}.".startswith(f"{root}.") for root in roots)


def ours(module):
    """The modules of ours among them: (line, module)."""
    for line, name in imports(module):
        if within(name, "folkmoot"):
            yield line, name if name in FILES else name.rpartition(".")[0] or name


def arrow(module, target):
    """The rule that an import of ours breaks, or None."""
    here, there = folder_of(module), folder_of(target)
    if target == "folkmoot":
        return "the package's face is for users; import a name from its home"
    if here == there or target == "folkmoot.core.errors":
        return None
    if here in LEAN:
        return f"{here} may import folkmoot.core.errors only, not {target}"
    if HEIGHT.get(there, 0) >= HEIGHT.get(here, 0):
        return f"{here} may import from the floors below it only, not {target}"
    return None


def stranger(module, name):
    """The rule that an import of somebody else's library breaks, or None."""
    file = FILES[module].relative_to(ROOT / "folkmoot").as_posix()
    for roots, homes in HOMES.items():
        if within(name, *roots.split()) and name not in HARMLESS and not file.startswith(homes):
            who = f"only by {' or '.join(homes)}" if homes else "by nobody"
            return f"{name} may be imported {who}"
    if folder_of(module) in LEAN and within(name, "torch"):
        return f"{folder_of(module)} does without torch"
    return None


def code(node):
    """The rule against running or unpickling input that an expression breaks, or None."""
    if isinstance(node, ast.Name) and node.id in ("eval", "exec", "__import__"):
        return f"{node.id} runs what it is given"
    if isinstance(node, ast.Call):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load" and options.get("weights_only") != "True":
            return "torch.load unpickles without weights_only=True"
        if options.get("allow_pickle", "False") != "False":
            return "allow_pickle unpickles"
    return None


def holds(faults):
    lines = [f"{FILES[m].relative_to(ROOT)}:{line}: {rule}" for m, line, rule in faults if rule]
    assert not lines, "\n".join(lines)


def test_every_folder_stands_on_a_floor():
    holds((m, 1, f"{folder_of(m)} is on no floor") for m in FILES if folder_of(m) not in HEIGHT)


def test_imports_point_downwards():
    holds((m, line, arrow(m, target)) for m in FILES for line, target in ours(m))


def test_modules_do_not_import_in_a_circle():
    edges = {module: {target: line for line, target in ours(module)} for module in FILES}

    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][::-1]
        holds([(circle[0], edges[circle[0]][circle[1]], f"a circle: {' -> '.join(circle)}")])


def test_libraries_are_imported_only_in_their_homes():
    holds((m, line, stranger(m, name)) for m in FILES for line, name in imports(m))


def test_nothing_runs_or_unpickles_what_it_reads():
    holds((m, n.lineno, rule) for m in FILES for n in NODES[m] if (rule := code(n)))


def test_files_are_short():
    lengths = {m: len(text.splitlines()) for m, text in TEXTS.items() if not m.endswith("_pb2")}
    core = sum(length for m, length in lengths.items() if folder_of(m) == "core")

    holds((m, 301, f"{n} lines, at most 300 in a file") for m, n in lengths.items() if n > 300)
    assert core <= 1000, f"folkmoot/core: {core} lines, at most 1000 in all its files"
