"""Search for the executables that are used instead of libraries, such as nft and iptables-restore."""

import os

_SYSTEM_DIRECTORIES = "/usr/local/sbin:/usr/sbin:/sbin"  # the PATH of a runtime may lack them


def find(*names: str) -> str | None:
    """Return the path of the first of these programs that exists, or None. PATH and the sbin directories are searched.

    (shutil.which would do the same, but takes 5 ms to import.)
    """
    directories = f"{os.environ.get('PATH', '')}:{_SYSTEM_DIRECTORIES}".split(":")
    for name in names:
        for directory in filter(None, directories):
            if os.access(program := f"{directory}/{name}", os.X_OK):
                return program
    return None
