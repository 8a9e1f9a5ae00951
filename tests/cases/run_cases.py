#!/usr/bin/env python3
"""Run the CNI conformance cases of ../data/cases.json with any plugins, and with any command like cnitool.

    sudo ./run_cases.py --bin /opt/cni/bin [--cnitool pycni]
    sudo ./run_cases.py --bin DIR --only 'env|VERSION' --plugins loopback,static -v

Needs root, `unshare` and `nsenter` of util-linux, `ip` of iproute2, and no Python packages. Everything runs in new
mount and network namespaces: /run, /var/lib/cni (or /var/lib) and /etc/cni are private there, so the host does not
change.
Every case has its own namespaces of a host (proto-h*) and of containers (proto-c*, proto-d*).

    sudo ./run_cases.py --bin DIR --then pycni serve &    # a server must see the same files as its callers
    sudo ./run_cases.py --bin DIR --in $!

Exit status: 0 if no case failed, 1 if a case failed, 2 if the cases could not run.

Verdicts
  PASS      the observation matches the expectation, usually the behaviour of the Go plugins
  PASS-ALT  it matches an acceptable alternative, usually the specification where the Go plugins differ from it
  QUIRK     a case of level "quirk" does not match; this is not a failure
  FAIL      anything else
  SKIP      the plugin or the command is missing, or the kernel lacks a feature

Levels: must = the specification and Go agree; go = the specification says nothing, interoperability needs it;
quirk = accidental behaviour of Go. Placeholders in a case: @NETNS@ @NETNS2@ (paths of the containers' namespaces)
@NSNAME@ @HOSTNS@ @BIN@ @RECBIN@ (directory of the recorders p1 p2 p3 recipam) @WORK@ @CONF@ @PLUGIN@ @CID@ (cnitool's
container ID for @NETNS@).
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
from topology import CACHE, WORK, SkipError, Testbed, stdin_of

CASES = Path(__file__).parents[1] / "data" / "cases.json"


def run_step(
    testbed: Testbed, options: argparse.Namespace, case: dict[str, Any], step: dict[str, Any]
) -> dict[str, Any]:
    """Run one step and return what was observed."""
    kind = step.get("run", case.get("run", "plugin"))
    env = testbed.fill({**case.get("env", {}), **step.get("env", {})})
    testbed.write(step.get("write", {}))
    cwd = testbed.fill(step["cwd"]) if "cwd" in step else None
    if kind == "plugin":
        name = testbed.fill(step.get("plugin", case.get("plugin", "@PLUGIN@")))
        executable = testbed.bin / name
        if not executable.exists():
            raise SkipError(f"no {name} in {testbed.bin}")
        return testbed.run(
            [executable, *step.get("argv", [])],
            env,
            stdin_of(testbed, step),
            cwd=cwd,
            stdin_path=testbed.fill(step.get("stdin_path")),
            stdout_path=step.get("stdout_path"),
        )
    if kind == "cnitool":
        if not options.cnitool:
            raise SkipError("no --cnitool")
        argv = testbed.fill(step.get("argv", case.get("argv", [])))
        return testbed.run([*options.cnitool.split(), *argv], env, cwd=cwd)
    return testbed.run(["sh", "-c", testbed.fill(step["sh"])], env)


def judge(
    testbed: Testbed, case: dict[str, Any], number: int, step: dict[str, Any], observed: dict[str, Any]
) -> tuple[str, str]:
    """Return the verdict on one step, and the reason."""
    if "expect" not in step:
        return "PASS", ""
    try:
        check(testbed.fill(step["expect"]), observed)
    except MismatchError as mismatch:
        for alternative in step.get("expect_alt") or ():
            try:
                check(testbed.fill(alternative), observed)
            except MismatchError:
                continue
            return "PASS-ALT", f"step {number}: matches alternative {alternative.get('why', '')}"
        return "QUIRK" if case.get("level") == "quirk" else "FAIL", f"step {number}: {mismatch}"
    return "PASS", ""


def run_case(
    case: dict[str, Any], options: argparse.Namespace, plugin: str, number: int
) -> tuple[str, str, list[dict[str, Any]]]:
    """Return the verdict on one case with one plugin, the reason, and the observation of each step."""
    observations, messages, verdict = [], [], "PASS"
    with Testbed(number, options.bin, plugin) as testbed:
        try:
            for command in case.get("setup", ()):
                observed = testbed.run(["sh", "-c", testbed.fill(command)], {})
                if observed["exit"]:
                    raise SkipError(f"setup {command!r} failed: {observed['stderr'].strip()[:200]}")
            testbed.write(case.get("write", {}))
            for i, step in enumerate(case.get("steps") or [case]):
                observed = run_step(testbed, options, case, step)
                observations.append(observed)
                if "save" in step:
                    testbed.saved[step["save"]] = first_document(observed["stdout"])
                step_verdict, message = judge(testbed, case, i, step, observed)
                if step_verdict in {"FAIL", "QUIRK"}:
                    return step_verdict, message, observations
                if step_verdict == "PASS-ALT":
                    verdict = step_verdict
                    messages.append(message)
        except SkipError as reason:
            return "SKIP", str(reason), observations
    return verdict, "; ".join(messages), observations


def first_document(stdout: bytes) -> Any:
    try:
        return documents(stdout)[0]
    except (ValueError, IndexError):
        return None


def plugins_of(case: dict[str, Any], present: list[str], restrict: set[str] | None) -> list[Any]:
    """Return the plugins with which to run the case; [None] for a case that names its plugins itself."""
    if "plugins" not in case:
        return [case.get("plugin")]
    names = present if case["plugins"] == "*" else case["plugins"]
    return [
        name
        for name in names
        if name not in case.get("not_plugins", ()) and (restrict is None or name in restrict)
    ]  # fmt: skip


def enter_sandbox(sandbox_of: int | None) -> None:
    """Execute this program again in new mount and network namespaces, with private directories for the cases.

    With `sandbox_of`, execute it in the namespaces of that process instead.
    """
    if os.environ.get("PROTO_INNER") != "1":
        if os.geteuid() != 0:
            sys.exit("root is needed")
        env = {**os.environ, "PROTO_INNER": "1"}
        enter = ["unshare", "-n", "-m", "--propagation", "private"]
        if sandbox_of:
            # --root: in a chroot, entering the mount namespace alone would leave it.
            enter = ["nsenter", f"--target={sandbox_of}", "--net", "--mount", "--root"]
        os.execvpe(enter[0], [*enter, sys.executable, __file__, *sys.argv[1:]], env)
    if sandbox_of:
        return
    directories = [Path("/run"), CACHE if CACHE.is_dir() else CACHE.parent]
    directories += [directory for directory in (Path("/etc/cni"),) if directory.is_dir()]
    for directory in directories:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
    for directory in (Path("/run/netns"), Path("/run/lock"), WORK, CACHE):
        directory.mkdir(parents=True, exist_ok=True)
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    if not any(mount[1:3] == ["/run", "tmpfs"] for mount in mounts):
        sys.exit("/run is not private")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="directory with the plugins under test")
    parser.add_argument("--cnitool", help="command like cnitool under test (without it the runtime cases are skipped)")
    parser.add_argument("--cases", type=Path, default=CASES)
    parser.add_argument("--only", help="regular expression on id or title")
    parser.add_argument("--plugins", help="run generic cases with these plugins only (a,b,c)")
    parser.add_argument("--json", type=Path, help="write all verdicts and observations to this file")
    parser.add_argument("--then", nargs=argparse.REMAINDER, help="run this command in the sandbox instead of the cases")
    parser.add_argument("--in", type=int, dest="sandbox_of", metavar="PID", help="use the sandbox of this process")
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
                verdict, message, observations = "SKIP", f"no {plugin}", []
            else:
                verdict, message, observations = run_case(case, options, plugin, len(results))
            counts[verdict] += 1
            results.append(
                {"id": case["id"], "plugin": plugin, "verdict": verdict, "message": message, "observed": observations}
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
