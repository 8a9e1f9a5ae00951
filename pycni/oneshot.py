"""Where the executables of a plugin directory begin when there is no server: a process for one call."""

import gc
import os
from typing import NoReturn


def main(name: str, entry: str) -> NoReturn:
    """Answer the call that this process was started for, and exit. `entry` is `module:Class` of the plugin."""
    gc.disable()  # a fifth of the time would go into collecting what is needed to the end
    env = dict(os.environ)
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "true"  # it would look for some in every distribution there is
    from pycni import deferred

    deferred.defer()
    from pycni.sdk.main import main_of_entry

    main_of_entry(name, entry, env)
