import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_while_the_package_is_imported_is_one_line(tmp_path: Path, name: str, status: int):
    (tmp_path / "halonet").mkdir()
    (tmp_path / "halonet" / "__init__.py").write_text(f"import os, signal\nos.kill(os.getpid(), signal.{name})\n")
    # An editable installation's finder comes before the path.
    program = (
        "import sys; from importlib.machinery import PathFinder; from halonet_command import main; "
        "sys.meta_path.insert(0, PathFinder); sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == status
    assert done.stderr == f"halonet: interrupted by {'Ctrl-C' if name == 'SIGINT' else name}\n"


def test_the_program_is_the_command_line(monkeypatch: pytest.MonkeyPatch):
    from halonet_command import main

    monkeypatch.setattr("halonet.cli.main", lambda: 5)
    monkeypatch.setattr("halonet_command.signal.signal", lambda *_: None)
    assert main() == 5
