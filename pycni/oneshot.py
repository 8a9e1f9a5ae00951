"""Where the executables of a plugin directory begin; what VERSION needs is loaded first, the rest only if it must."""

import os
import sys
from typing import NoReturn


def main(name: str, entry: str, versions: tuple[str, ...]) -> NoReturn:
    """Answer the call that this process was started for, and exit. `entry` is `module:Class` of the plugin."""
    if os.environ.get("CNI_COMMAND") == "VERSION":
        from pycni.protocol import version

        _print_and_exit(version.reply(versions))
    words = sys.argv[1:] if not os.environ.get("CNI_COMMAND") else []
    env = dict(os.environ)
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "true"  # it would look for some in every distribution there is
    from pycni.sdk.main import main_of_entry

    main_of_entry(name, entry, env, words)


def _print_and_exit(text: str) -> NoReturn:
    try:
        os.write(1, text.encode())
    except OSError as error:
        sys.stderr.write(f"Error writing the answer to stdout: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
