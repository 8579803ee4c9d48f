"""Where a checkpoint's files are: in a folder, in an installed package, or on a hub."""

import importlib.util
import re
from importlib import metadata
from pathlib import Path

from training.config import TrainingError

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
SAFE_FILES = ("model.safetensors", "model.safetensors.index.json")
PICKLED_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
WEIGHT_FILES = (*SAFE_FILES, *PICKLED_FILES)
PACKAGE_PREFIX = "package:"
HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
NEEDED = f"{CONFIG_FILE}, {TOKENIZER_FILE} and {SAFE_FILES[0]} (or {PICKLED_FILES[0]})"


def find_weights(source: str, setting: str = "text.weights") -> Path:
    """Return the folder of the checkpoint that `setting`, which errors name, is about.

    `source` is a folder, `package:NAME` for one inside an installed distribution or module (the
    least deep one), or a name on the hub, which is asked if no folder has that name. Raises
    TrainingError if there is none, or if a file is missing.
    """
    if source.startswith(PACKAGE_PREFIX):
        return _of_package(source, setting)
    folder = Path(source).expanduser()
    if not folder.exists() and HUB_NAME.fullmatch(source):
        folder = _of_hub(source, setting)
    if not folder.is_dir():
        raise TrainingError(
            f"{setting}: {source!r} is no folder; name one with {NEEDED}, `package:NAME` "
            "for an installed package that has one, or a checkpoint of the hub"
        )
    missing = missing_files(folder)
    if missing:
        raise TrainingError(
            f"{setting}: {source!r} has no {' and no '.join(missing)}; a checkpoint has {NEEDED}"
        )
    return folder


def missing_files(folder: Path) -> list[str]:
    """Return what a folder lacks to be a checkpoint."""
    missing = [name for name in (CONFIG_FILE, TOKENIZER_FILE) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        missing.append(f"{SAFE_FILES[0]} or {PICKLED_FILES[0]}")
    return missing


def _of_package(source: str, setting: str) -> Path:
    name = source.removeprefix(PACKAGE_PREFIX)
    folders = _package_folders(name)
    if not folders:
        raise TrainingError(
            f"{setting}: {source!r}: no package {name!r} is installed here; "
            f"`pip install {name}`, or name a folder with {NEEDED}"
        )
    found = [
        path.parent
        for folder in folders
        for path in folder.rglob(CONFIG_FILE)
        if not missing_files(path.parent)
    ]
    if not found:
        raise TrainingError(
            f"{setting}: {source!r}: the package {name!r} has no folder with {NEEDED}"
        )
    return min(found, key=lambda path: (len(path.parts), path))


def _package_folders(name: str) -> list[Path]:
    """Return the folders of a module or a distribution, without importing either; [] if none."""
    module = re.sub(r"[-.]", "_", name)
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is not None and spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations]
    try:
        distribution = metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return []
    tops = {file.parts[0] for file in distribution.files or () if len(file.parts) > 1}
    places = [Path(str(distribution.locate_file(top))) for top in sorted(tops)]
    return [place for place in places if place.is_dir()]


def _of_hub(source: str, setting: str) -> Path:
    """Download a checkpoint's files, or find them where they were downloaded before."""
    described = [CONFIG_FILE, TOKENIZER_FILE]
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  # of the extra `lm`
    except ModuleNotFoundError as exc:
        raise TrainingError(
            f"{setting}: {source!r} is no folder, and to ask a hub for it needs {exc.name}; "
            "install the extra `lm`, pip install 'sojourn[lm]', or name a folder"
        ) from exc
    try:
        # The pickled weights only where there are no others: each is the whole network again.
        folder = Path(snapshot_download(source, allow_patterns=[*described, "model*.safetensors*"]))
        if not any((folder / name).is_file() for name in SAFE_FILES):
            wanted = [*described, "pytorch_model*.bin*"]
            folder = Path(snapshot_download(source, allow_patterns=wanted))
    except (OSError, ValueError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise TrainingError(
            f"{setting}: {source!r} is no folder, and the hub does not give it ({reason}); "
            f"name a folder with {NEEDED}, or `package:NAME` for an installed package that has one"
        ) from exc
    return folder
