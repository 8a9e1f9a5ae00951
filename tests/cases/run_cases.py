#!/usr/bin/env python3
"""Run the CNI conformance cases of ../data/cases.json on any plugins, and on any command like cnitool.

    sudo ./run_cases.py --bin /opt/cni/bin [--cnitool pycni]
    sudo ./run_cases.py --bin DIR --only 'env|VERSION' --plugins loopback,static -v

Needs root, util-linux `unshare` and `nsenter`, iproute2 `ip`, and no Python packages. Everything runs in a throwaway
mount and network namespace: /run, /var/lib/cni (or /var/lib) and /etc/cni are private there, so nothing on the host
changes.
Every case has a "host" namespace (proto-h*) and container namespaces (proto-c*, proto-d*) of its own.

    sudo ./run_cases.py --bin DIR --then pycni serve &    # a server has to see the same files as its callers
    sudo ./run_cases.py --bin DIR --in $!

Exit status: 0 if no case failed, 1 if some did, 2 if it could not run.

Verdicts
  PASS      what is observed is what the case expects (what the Go plugins do)
  PASS-ALT  it is another acceptable behaviour, usually what the specification asks for where Go deviates
  QUIRK     a case of level "quirk" did not match: these document accidents of Go, and never fail the run
  FAIL      anything else
  SKIP      the plugin or the command is not there, or the kernel lacks something

Levels: must = specification and Go agree; go = the specification is silent, interchange needs it; quirk = an
accident. Placeholders in a case: @NETNS@ @NETNS2@ (paths of the containers) @NSNAME@ @HOSTNS@ @BIN@ @RECBIN@ (the
recorder as p1 p2 p3 recipam) @WORK@ @CONF@ @PLUGIN@ @CID@ (cnitool's container id of @NETNS@).
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from matching import MismatchError, check, documents
from topology import CACHE, WORK, SkipError, World, stdin_of

CASES = Path(__file__).parents[1] / "data" / "cases.json"


def run_step(world: World, options: argparse.Namespace, case: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """Do one step; what was observed."""
    kind = step.get("run", case.get("run", "plugin"))
    env = world.filled({**case.get("env", {}), **step.get("env", {})})
    world.write(step.get("write", {}))
    cwd = world.filled(step["cwd"]) if "cwd" in step else None
    if kind == "plugin":
        name = world.filled(step.get("plugin", case.get("plugin", "@PLUGIN@")))
        executable = world.bin / name
        if not executable.exists():
            raise SkipError(f"no {name} in {world.bin}")
        return world.run(
            [executable, *step.get("argv", [])],
            env,
            stdin_of(world, step),
            cwd=cwd,
            stdin_path=world.filled(step.get("stdin_path")),
            stdout_path=step.get("stdout_path"),
        )
    if kind == "cnitool":
        if not options.cnitool:
            raise SkipError("no --cnitool")
        argv = world.filled(step.get("argv", case.get("argv", [])))
        return world.run([*options.cnitool.split(), *argv], env, cwd=cwd)
    return world.run(["sh", "-c", world.filled(step["sh"])], env)


def judge(
    world: World, case: dict[str, Any], number: int, step: dict[str, Any], observed: dict[str, Any]
) -> tuple[str, str]:
    """The verdict on one step, and why."""
    if "expect" not in step:
        return "PASS", ""
    try:
        check(world.filled(step["expect"]), observed)
    except MismatchError as mismatch:
        for alternative in step.get("expect_alt") or ():
            try:
                check(world.filled(alternative), observed)
            except MismatchError:
                continue
            return "PASS-ALT", f"step {number}: matches alternative {alternative.get('why', '')}"
        return "QUIRK" if case.get("level") == "quirk" else "FAIL", f"step {number}: {mismatch}"
    return "PASS", ""


def run_case(
    case: dict[str, Any], options: argparse.Namespace, plugin: str, number: int
) -> tuple[str, str, list[dict[str, Any]]]:
    """The verdict on one case with one plugin, why, and what was observed at each step."""
    seen, messages, verdict = [], [], "PASS"
    with World(number, options.bin, plugin) as world:
        try:
            for command in case.get("setup", ()):
                observed = world.run(["sh", "-c", world.filled(command)], {})
                if observed["exit"]:
                    raise SkipError(f"setup {command!r} failed: {observed['stderr'].strip()[:200]}")
            world.write(case.get("write", {}))
            for i, step in enumerate(case.get("steps") or [case]):
                observed = run_step(world, options, case, step)
                seen.append(observed)
                if "save" in step:
                    world.saved[step["save"]] = saved(observed["stdout"])
                judged, message = judge(world, case, i, step, observed)
                if judged in {"FAIL", "QUIRK"}:
                    return judged, message, seen
                if judged == "PASS-ALT":
                    verdict = judged
                    messages.append(message)
        except SkipError as reason:
            return "SKIP", str(reason), seen
    return verdict, "; ".join(messages), seen


def saved(stdout: bytes) -> Any:
    try:
        return documents(stdout)[0]
    except (ValueError, IndexError):
        return None


def plugins_of(case: dict[str, Any], present: list[str], restrict: set[str] | None) -> list[Any]:
    """The plugins with which to run the case; None for a case that names its plugins itself."""
    if "plugins" not in case:
        return [case.get("plugin")]
    names = present if case["plugins"] == "*" else case["plugins"]
    return [
        name
        for name in names
        if name not in case.get("not_plugins", ()) and (restrict is None or name in restrict)
    ]  # fmt: skip


def enter_sandbox(sandbox_of: int | None) -> None:
    """Start again in a mount and network namespace of our own, then make the places private that cases write to.

    Or start again in the sandbox of another process, which has done so.
    """
    if os.environ.get("PROTO_INNER") != "1":
        if os.geteuid() != 0:
            sys.exit("root is needed")
        env = {**os.environ, "PROTO_INNER": "1"}
        enter = ["unshare", "-n", "-m", "--propagation", "private"]
        if sandbox_of:
            enter = ["nsenter", f"--target={sandbox_of}", "-n", "-m"]
        os.execvpe(enter[0], [*enter, sys.executable, __file__, *sys.argv[1:]], env)
    if sandbox_of:
        return
    places = [Path("/run"), CACHE if CACHE.is_dir() else CACHE.parent]
    places += [place for place in (Path("/etc/cni"),) if place.is_dir()]
    for place in places:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    for place in (Path("/run/netns"), Path("/run/lock"), WORK, CACHE):
        place.mkdir(parents=True, exist_ok=True)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    if not any(mount[1:3] == ["/run", "tmpfs"] for mount in mounts):
        sys.exit("/run is not private")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="directory with the plugins under test")
    parser.add_argument("--cnitool", help="command like cnitool under test (else the runtime cases are skipped)")
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--only", help="regular expression on id or title")
    parser.add_argument("--plugins", help="run generic cases with these plugins alone (a,b,c)")
    parser.add_argument("--json", type=Path, help="write all verdicts and observations to this file")
    parser.add_argument("--then", nargs=argparse.REMAINDER, help="run no case but this command, in the sandbox")
    parser.add_argument("--in", type=int, dest="sandbox_of", metavar="PID", help="use the sandbox of that command")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-l", "--list", action="store_true", help="list the cases and exit")
    options = parser.parse_args()
    options.bin = options.bin.resolve()
    if options.bin.is_relative_to("/run"):
        parser.error("--bin must not be below /run, which is private in the sandbox")
    return options


def main() -> int:
    options = arguments()
    cases = json.loads(options.cases.read_text())["cases"]
    if options.only:
        wanted = re.compile(options.only, re.IGNORECASE)
        cases = [case for case in cases if wanted.search(case["id"]) or wanted.search(case["title"])]
    if options.list:
        for case in cases:
            print(f"{case['id']:<34} {case.get('level', 'must'):<6} {case['title']}")
        return 0
    enter_sandbox(options.sandbox_of)
    if options.then:
        os.execvp(options.then[0], options.then)
    present = sorted(file.name for file in options.bin.iterdir() if file.is_file() and os.access(file, os.X_OK))
    restrict = set(options.plugins.split(",")) if options.plugins else None
    results, counts = [], Counter()
    for case in cases:
        for plugin in plugins_of(case, present, restrict):
            if plugin is not None and plugin not in present:
                verdict, message, seen = "SKIP", f"no {plugin}", []
            else:
                verdict, message, seen = run_case(case, options, plugin, len(results))
            counts[verdict] += 1
            results.append(
                {"id": case["id"], "plugin": plugin, "verdict": verdict, "message": message, "observed": seen}
            )
            if verdict not in {"PASS", "SKIP"} or options.verbose:
                name = f"{case['id']} [{plugin}]" if plugin else case["id"]
                print(f"{verdict:<8} {name}  {case['title']}\n         {message}".rstrip(), flush=True)
    print("TOTAL " + "  ".join(f"{verdict}={count}" for verdict, count in sorted(counts.items())))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
