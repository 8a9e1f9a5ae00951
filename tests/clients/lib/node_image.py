"""node_image.py ROOT CONTAINERFILE FILE: write the image that Containerfile builds from ROOT, as a docker archive."""

import io
import json
import re
import sys
import tarfile
from pathlib import Path

from image import write

NAME = "localhost/pycni:0.1.0"


def main(root: str, containerfile: str, file: str) -> None:
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", Path(containerfile).read_text(), re.MULTILINE)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(root, ".")
    write(file, packed.getvalue(), (NAME,), Entrypoint=json.loads(entrypoint))


if __name__ == "__main__":
    main(*sys.argv[1:])
