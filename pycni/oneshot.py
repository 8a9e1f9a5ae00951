"""Where the executables of a plugin directory begin when there is no server: a process for one call."""

import gc
import os
import sys
from typing import NoReturn


def main(name: str, entry: str) -> NoReturn:
    """Answer the call that this process was started for, and exit. `entry` is `module:Class` of the plugin."""
    words = [] if os.environ.get("CNI_COMMAND") else sys.argv[1:]
    env = dict(os.environ)
    # pydantic would look for plugins in every distribution there is, and load all that Python knows of its own build to
    # find time zones.
    os.environ |= {"PYDANTIC_DISABLE_PLUGINS": "true", "PYTHONTZPATH": ""}
    if not words:
        gc.disable()  # a fifth of the time would go into collecting what is needed to the end
        from pycni import lazy_loading

        lazy_loading.defer()
    from pycni.sdk.main import main_of_entry

    main_of_entry(name, entry, env, words)
