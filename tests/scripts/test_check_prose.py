"""scripts/check-prose finds banned phrases in prose, and ignores code."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check-prose"


def findings(file: Path, text: str) -> list[str]:
    """Return the findings in a file with this text, as `line: "phrase"`."""
    file.write_text(text)
    done = subprocess.run(["/usr/bin/python3", SCRIPT, file], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    found = [line.removeprefix(f"{file}:").rpartition('": ')[0] + '"' for line in done.stdout.splitlines()]
    assert done.returncode == (1 if found else 0)
    return [line.replace(':"', ': "') for line in found]


MARKDOWN = """\
# What is new

Whoever reads `anew`
will see by
now.

- What it is, is said here.
- What is it?

```sh
echo anew # by and by
```
"""

PYTHON = '''\
"""What it is."""

ANEW = "somebody"  # it begins anew


def door(nobody: str) -> str:
    """Whether it is.

    Somebody asks.
    """
    # of
    # one's choice
    return nobody
'''

SHELL = """\
#!/bin/sh
# P-123: gives it
echo "nobody # here"
echo anew # lets it through
"""

C = """\
/* It is said
 * by and by. */
char *text = "/* nobody */"; // as well
int anew; /* as well as this */
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.md", MARKDOWN, ['3: "Whoever"', '4: "by now"', '7: "What it is, is said"']),
        (
            "a.py",
            PYTHON,
            ['1: "What it is."', '3: "anew"', '7: "Whether"', '9: "Somebody"', '11: "of one\'s choice"'],
        ),
        ("a.sh", SHELL, ['2: "P-123"', '4: "lets it through"']),
        ("a.c", C, ['2: "by and by"', '3: "as well"']),
    ],
)
def test_phrases_are_found_in_prose_only(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    assert findings(tmp_path / name, text) == expected


def test_clean_files_have_no_findings(tmp_path: Path) -> None:
    assert findings(tmp_path / "a.py", '"""A module."""\n') == []
