"""The entry point of one-shot processes: what an executable of a plugin directory runs when there is no server."""

import gc
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

_WITH_PYDANTIC = "PYCNI_WITH_PYDANTIC"  # set for a process that starts again with pydantic


def main(name: str, entry: str, *, needs_pydantic: bool = True) -> NoReturn:
    """Answer the call that this process was started for, and exit.

    `entry` is the `module:Class` of the plugin `name`. With `needs_pydantic` its models are declared with pydantic,
    else with pydantic_subset.
    """
    arguments = [] if os.environ.get("CNI_COMMAND") else sys.argv[1:]
    env = dict(os.environ)
    needs_pydantic = bool(env.pop(_WITH_PYDANTIC, "")) or needs_pydantic
    if not arguments:
        gc.disable()  # collecting takes a fifth of the time, and nearly all objects are needed to the end
        from pycni import lazy_loading, lazy_logging

        lazy_loading.defer()
        lazy_logging.defer()
        if not needs_pydantic:
            from pycni import pydantic_subset

            pydantic_subset.use()
    # pydantic looks for plugins in every installed distribution, and loads Python's build configuration to find time
    # zones.
    os.environ |= {"PYDANTIC_DISABLE_PLUGINS": "true", "PYTHONTZPATH": ""}
    from pycni.sdk.main import main_of_entry

    main_of_entry(name, entry, env, arguments, restart_env=env | {_WITH_PYDANTIC: "1"})


def loadable_without_pydantic(entries: Iterable[str]) -> list[str]:
    """Return those entries whose plugins can declare their models with pydantic_subset. For `pycni install`.

    Each is loaded in a process of its own, since a class that cannot be created would be in the way of the others.
    """
    from importlib import import_module

    from pycni import pydantic_subset

    pydantic_subset.use()
    from pycni.sdk.config import build_models

    loadable = []
    for entry in entries:
        child = os.fork()
        if not child:
            try:
                import_module(entry.partition(":")[0])
                build_models()
            except BaseException:  # noqa: BLE001 - UnsupportedError, and whatever a plugin raises
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            loadable.append(entry)
    return loadable
