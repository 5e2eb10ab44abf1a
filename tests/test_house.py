"""The structure of the package: who imports whom, how large rooms are, and what the wheel contains."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"dpa2calc": "dpa2calc", "training": "dpa2calc.training", "applications": "dpa2calc.applications"}
MOST_FILES, MOST_LINES = 16, 350

# The ground floor, open to everybody.
GROUND = {"errors", "heads", "version", "ambient", "progress", "files"}
TRAINING = {f"training.{room}" for room in ("config", "data", "runs", "fit")}
APPLICATIONS = ("md", "relaxation", "crystals", "defects", "molecules", "structure", "transport")
APPLICATIONS += ("transitions", "maps", "screening")
# Room -> rooms that it may import, besides itself and the ground floor. A part of training or applications
# is named with a dot. Verbs import what they need inside their functions, which is not looked at.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "heads": set(),
    "version": set(),
    "ambient": set(),
    "progress": set(),
    "shared_cores": set(),
    "files": set(),
    "structures": set(),
    "kernels": {"structures"},
    "model": {"structures", "kernels"},
    "validation": {"model"},
    "store": {"structures", "model", "deepmd", "validation"},
    "deepmd": {"structures", "model", "store"},
    "labels": {"structures"},
    "engine": {"structures", "kernels", "model", "store", "validation"},
    "description": {"model", "store", "engine"},
    "calculator": {"structures", "model", "store", "engine", "labels", "description", "validation"},
    "integrations": {"structures", "model", "engine", "validation", "calculator"},
    "dpa2calc": {"calculator", "description", "shared_cores", "store"},
    "__main__": {"cli"},
    "cli": {"model"},
    "dynamics": {"structures"},
    "training.data": {"labels"},
    "training.config": {"training.data"},
    "training.runs": {"training.config", "training.data"},
    "training.fit": {"training.config", "training.data", "training.runs"},
    "training.finetune": TRAINING,
    "training.exploration": {*TRAINING, "dynamics"},
    "training.distill": {*TRAINING, "training.exploration"},
    "training.learning": {*TRAINING, "training.exploration", "training.finetune"},
    "training": {
        *TRAINING,
        "training.finetune",
        "training.distill",
        "training.learning",
        "training.exploration",
    },
    "applications.shared": set(),
    "applications.md": set(),
    "applications.relaxation": set(),
    "applications.crystals": {"applications.relaxation"},
    "applications.defects": {"applications.relaxation", "applications.crystals"},
    "applications.molecules": {"applications.relaxation"},
    "applications.structure": set(),
    "applications.transport": {"applications.structure"},
    "applications.transitions": {"applications.md", "applications.relaxation"},
    "applications.maps": set(),
    "applications.screening": {f"applications.{room}" for room in ("relaxation", "crystals", "molecules")},
    "applications": {f"applications.{room}" for room in APPLICATIONS},
}
CORE = {
    "structures",
    "model",
    "store",
    "engine",
    "labels",
    "description",
    "validation",
    "calculator",
    "deepmd",
}
"""What every part of training may import of the core."""


def modules() -> dict[str, Path]:
    """All modules: dotted name as installed -> file."""
    found = {}
    for folder, package in ROOMS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *(p for p in parts if p != "__init__")))] = path
    return found


MODULES = modules()


def imports(name: str, *, top_level: bool) -> set[str]:
    """Modules of this package that a module imports."""
    path = MODULES[name]
    tree = ast.parse(path.read_text())
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    seen = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            seen |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            seen |= {n for n in names if n in MODULES} or {base}
    assert not {s for s in seen if s.split(".")[0] in ("training", "applications")}, (
        "import dpa2calc.training"
    )
    return seen & MODULES.keys()


def room_of(name: str) -> str:
    """The room of a module, as in ALLOWED."""
    parts = name.split(".")[1:]
    if not parts:
        return "dpa2calc"
    inside = parts[0] in ("training", "applications")
    folder = MODULES[name].name == "__init__.py"
    return ".".join(parts[:2]) if inside and (len(parts) > 2 or (len(parts) == 2 and folder)) else parts[0]


def may_import(room: str, other: str) -> bool:
    """Whether the rules allow it."""
    top = room.partition(".")[0]
    if other == room or other in GROUND or other in ALLOWED[room]:
        return True
    if top == "training":  # its own top-level modules (statistics, evaluate) and the core
        return other in CORE or (other == "training" and room not in ("training.data", "training.config"))
    return top == "applications" and other in ("applications.shared", "dynamics", "structures")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_rooms_import_only_what_they_may_know(name):
    room = room_of(name)
    used = imports(name, top_level=room == "cli")
    assert not {u for u in used if not may_import(room, room_of(u))}


def test_setup_cfg_lists_every_package_folder():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    folders = {
        ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
        for folder, package in ROOMS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert folders == listed


def test_no_room_and_no_file_needs_a_table_of_contents():
    files: dict[Path, int] = {}
    for path in MODULES.values():
        files[path.parent] = files.get(path.parent, 0) + 1
    full = {str(folder.relative_to(ROOT)): n for folder, n in files.items() if n > MOST_FILES}
    lines = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in MODULES.values()}
    assert not full
    assert not {path: n for path, n in lines.items() if n > MOST_LINES}


def test_library_code_neither_prints_nor_unpickles():
    for name, path in MODULES.items():
        if name.startswith("dpa2calc.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "torch.jit.load", "torch.set_default_dtype"), (
                    f"{path}: {called}"
                )
                unsafe = [
                    k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) != "True"
                ]
                assert not (called == "torch.load" and unsafe), path


def test_models_are_formulas_that_know_neither_modes_nor_devices():
    for name, path in MODULES.items():
        if name.startswith("dpa2calc.model."):
            found = [
                w
                for w in ("requires_grad", "numba", "is_cuda", "is_cpu", ".type ==", ".type !=")
                if w in path.read_text()
            ]
            assert not found, f"{path}: {found}; choose by Potential.use, and leave the rest to kernels"
