"""The commands of README.md, in the order in which they are written, as root of a bare Debian 12."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
BARE_DEBIAN = CHECKOUT / "tests" / "clients" / "lib" / "bare_debian.sh"
ROOT = Path(sys.prefix) / "debian"  # made by scripts/setup

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (ROOT / "complete").exists(), reason="needs the Debian root that scripts/setup makes as root"
    ),
]


def commands(section: str) -> str:
    """Return the shell commands of a section of README.md."""
    text = (CHECKOUT / "README.md").read_text()
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {section}"
    return "\n".join(re.findall(r"```sh\n(.*?)```", found[1], re.DOTALL))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Run a script in a bare Debian with the checkout in /src; later scripts see what earlier ones have written."""
    source = tmp_path / "upper" / "files" / "src"
    source.mkdir(parents=True)
    files = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for file in (Path(name) for name in files if name and (CHECKOUT / name).exists()):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / file, source / file)

    def in_debian(script: str, *before: str) -> str:
        path = tmp_path / "script.sh"
        path.write_text(f"cd /src\n{script}")
        command = [*before, BARE_DEBIAN, ROOT, tmp_path / "upper", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return in_debian


@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works_on_a_bare_debian(run: Callable[..., str]) -> None:
    run(commands("Install"))
    printed = run(commands("Try a network") + commands("The server"), "unshare", "--net")
    assert "DEL left nothing of the attachment" in printed
    assert '"address": "10.22.0.2/24"' in printed
    assert "inet 10.22.0.2/24" in printed
    assert " by a call" in printed  # the first call has started a server
    assert "stopped the server with pid" in printed
