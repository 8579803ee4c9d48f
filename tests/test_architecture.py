"""What the import linter cannot say: sizes, and what happens when a module is imported."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("service", "training")
CHECKED_TOO = ("sojourn_client", "tests", "benchmarks", "deploy")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
ALL_CODE = sorted(SOURCES + [p for name in CHECKED_TOO for p in (ROOT / name).rglob("*.py")])
CONTRACT = sorted((ROOT / "service" / "contract").rglob("*.py"))
CONTRACT_MAY_IMPORT = sys.stdlib_module_names | {"numpy", "opening_hours", "pydantic"}

# Calls that reach outside or build a part of the program, by the last word of what is called.
BUILDERS = frozenset({
    "CollectorRegistry", "ConnectionPool", "Counter", "FastAPI", "Gauge", "Histogram",
    "InferenceSession", "Metrics", "Redis", "RedisCluster", "Sentinel", "Settings", "Summary",
    "Thread", "ThreadPoolExecutor", "basicConfig", "configure", "connect", "create_app",
    "create_connection", "from_url", "getenv", "load", "mkdir", "open", "print", "read_bytes",
    "read_text", "run", "start", "write_bytes", "write_text",
})  # fmt: skip
ENVIRONMENT = frozenset({"environ", "environb", "argv"})

TEXT_SUFFIXES = frozenset({
    "", ".cfg", ".css", ".html", ".js", ".json", ".lua", ".md", ".py", ".sh", ".svg", ".toml",
    ".txt", ".yaml", ".yml",
})  # fmt: skip
PUBLISHED = (
    "service",
    "training",
    "sojourn_client",
    "tests",
    "benchmarks",
    "deploy",
    "docs",
    ".ci",
)
# The homes of people and machines; written so that this line is not one of them.
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:home|root|Users|work)/[\w.]")


def relative(path: Path) -> str:
    """Name a file in a test's id as a reader of the repository would."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", ALL_CODE, ids=relative)
def test_a_module_has_at_most_400_lines(path: Path) -> None:
    """What does not fit is two things."""
    assert len(path.read_text("utf-8").splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", ALL_CODE, ids=relative)
def test_a_function_has_at_most_50_lines(path: Path) -> None:
    """A long function is split where a comment would have named the part."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    too_long = [
        node.name
        for node in ast.walk(parse(path))
        if isinstance(node, kinds)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert too_long == []


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=relative)
def test_a_package_is_empty_at_its_top(path: Path) -> None:
    """Importing `service.contract` must load nothing of the service around it."""
    assert path.read_text("utf-8").strip() == ""


@pytest.mark.parametrize("path", CONTRACT, ids=relative)
def test_the_contract_imports_only_the_libraries_that_are_always_installed(path: Path) -> None:
    """Both programs load it, so whatever it imports both have to install."""
    foreign = [
        name
        for name in imported_names(parse(path))
        if name.split(".")[0] not in CONTRACT_MAY_IMPORT
        and not name.startswith("service.contract.")
    ]
    assert foreign == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_built_at_import(path: Path) -> None:
    """One place builds, when it is called: tests then build the same program with other parts."""
    assert list(import_time_effects(parse(path))) == []


def test_the_reader_of_import_time_effects_sees_them() -> None:
    """The rule above is only as good as its reader: each of these acts when it is imported."""
    module = ast.parse(
        "client = redis.Redis()\n"
        "def connect(url=os.getenv('URL')): ...\n"
        "class Holder:\n    path = Path('x').read_text()\n"
        "if os.environ['DEBUG']: pass\n"
        "def later():\n    return redis.Redis()\n"
        "if __name__ == '__main__':\n    run()\n"
    )
    assert list(import_time_effects(module)) == [
        "line 1: Redis()",
        "line 2: getenv()",
        "line 4: read_text()",
        "line 5: environ",
    ]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        (
            "service.app",
            (
                "torch",
                "onnx",
                "training",
                "daft",
                "tensorboard",
                "faiss",
                "transformers",
                "peft",
                "safetensors",
                "tokenizers",
            ),
        ),
        # NumPy reads how many threads it may start when it is loaded; the command says so first.
        ("service.__main__", ("numpy", "pyarrow", "onnxruntime")),
        ("service.contract.bundle", ("fastapi", "redis", "onnxruntime", "torch", "pyarrow")),
        ("training.metrics", ("torch", "fastapi", "redis")),
        # An extra of its own: who reads no texts need not install it.
        ("training.__main__", ("transformers", "peft", "safetensors", "huggingface_hub")),
    ],
)
def test_an_import_loads_only_what_it_needs(module: str, absent: tuple[str, ...]) -> None:
    """The serving image has neither torch nor transformers; a reader of bundles needs no server."""
    code = f"import sys, {module}; print(*sorted(set({absent!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_no_published_file_names_a_path_of_one_machine() -> None:
    """What holds on the author's machine only is a bug on every other."""
    found = [
        f"{relative(path)}:{number}"
        for path in published_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_not_python_is_installed_too(package: str) -> None:
    """Scripts, pages and presets are there in a checkout and missing in an image otherwise."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        patterns = tomllib.load(stream)["tool"]["setuptools"]["package-data"][package]
    folder = ROOT / package
    left_out = [
        relative(path)
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc"}
        and not any(path.relative_to(folder).match(pattern) for pattern in patterns)
    ]
    assert left_out == []


def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of every module that is imported, at the top or inside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def import_time_effects(tree: ast.Module) -> Iterator[str]:
    """Yield what runs on import and reads the environment, connects, or builds a part."""
    for node in import_time_nodes(tree):
        if isinstance(node, ast.Call) and last_word(node.func) in BUILDERS:
            yield f"line {node.lineno}: {last_word(node.func)}()"
        elif isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            yield f"line {node.lineno}: {node.attr}"


def import_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that an import evaluates: no bodies of functions, but their defaults."""
    if isinstance(node, ast.Lambda) or (isinstance(node, ast.If) and is_main_guard(node)):
        return
    yield node
    children = ast.iter_child_nodes(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        children = iter([*node.decorator_list, node.args])
    for child in children:
        yield from import_time_nodes(child)


def is_main_guard(node: ast.If) -> bool:
    """Tell `if __name__ == "__main__":`, whose body no import runs."""
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))


def last_word(node: ast.expr) -> str:
    """Return `c` of `a.b.c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def published_files() -> Iterator[Path]:
    """Yield the repository's text files; data, runs, bundles and environments are not published."""
    nested = [p for name in PUBLISHED for p in (ROOT / name).rglob("*")]
    for path in [*ROOT.iterdir(), *nested]:
        hidden = any(part in {"__pycache__", ".git"} for part in path.parts)
        if path.is_file() and path.suffix in TEXT_SUFFIXES and not hidden:
            yield path
