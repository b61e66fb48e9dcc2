"""Mutation tests of pruning, robustness and detection: change one thing in their code; does a test then fail?

    make mutants                  all of them: hours. Stop it at will, it goes on where it was
    make mutants SINCE=main       on the lines changed since a commit
    make mutants EVERY=24 FROM=5  a sample: each 24th, from number 5 on

The changes are mutmut's. Its way to run them is not used: it replaces functions by others, and registries, signatures
and the keys of results look at the functions themselves. Here a child, forked from one pytest process that has loaded
everything, puts the mutated code into the functions that are there. It runs the tests that call the mutated function,
the fast ones first, up to the first that fails. Left out: strings, annotations and what only makes a message.
"""

import argparse
import difflib
import gc
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType

import hypothesis
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pruning", "robustness", "detection")
SOURCES = [f"{p.relative_to(ROOT)}" for name in PACKAGES for p in sorted((ROOT / "sparselib" / name).glob("*.py"))]
WORK = ROOT / "_build" / "mutants"
LEAST = 0.85  # of the mutants that tests must kill
LIMIT = 60, 20  # seconds, and times what a test takes: beyond both together the mutant hangs, and counts as killed


@dataclass
class Mutant:
    path: str
    line: int
    span: tuple[int, int]  # lines of the function around it, or of the whole module
    key: str
    module: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode

    def code(self):
        return self.module.deep_replace(self.old, self.new).code


class Mutants(cst.CSTVisitor):
    """Collects the mutants of a file."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, path):
        text = (ROOT / path).read_text(encoding="utf-8")
        self.path, self.digest, self.found = path, _digest(text), []
        self.line, self.depth, self.whole = 1, 0, (1, text.count("\n") + 1)
        self.span = self.whole
        self.wrapper = MetadataWrapper(cst.parse_module(text))
        self.wrapper.visit(self)

    def on_visit(self, node):
        if _left_out(node):
            return False
        place = self.get_metadata(PositionProvider, node, None)
        self.line = place.start.line if place else self.line  # operators have none
        if isinstance(node, cst.FunctionDef):
            if not self.depth:
                first = self.get_metadata(PositionProvider, (*node.decorators, node)[0], None)
                self.span = first.start.line, place.end.line
            self.depth += 1
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and operator is not operator_string:
                for new in operator(node):
                    key = f"{self.path}:{len(self.found)}:{self.digest}"
                    self.found.append(Mutant(self.path, self.line, self.span, key, self.wrapper.module, node, new))
        return True

    def on_leave(self, node):
        self.depth -= isinstance(node, cst.FunctionDef)
        self.span = self.span if self.depth else self.whole


def _left_out(node):
    """Messages, annotations, decorators, imports, and, as by mutmut, len, isinstance and default values by a call."""
    if isinstance(node, cst.Call):
        name = node.func.attr if isinstance(node.func, cst.Attribute) else node.func
        return isinstance(name, cst.Name) and name.value in ("warn", "len", "isinstance")
    if isinstance(node, cst.Param):
        return isinstance(node.default, cst.Call)
    return isinstance(
        node, cst.Raise | cst.FormattedString | cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom
    )


def put_in_place(mutant):
    """Give the functions and constants of a loaded module the code and values of the mutated one."""
    name = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    loaded = vars(sys.modules[name])
    mutated = dict(loaded)
    exec(compile(mutant.code(), str(ROOT / mutant.path), "exec"), mutated)
    _replace(loaded, mutated, name, loaded.__setitem__)


def _replace(old, new, module, put):
    for name in set(old) & set(new) - {"__builtins__"}:
        mine, other = _function(old[name]), _function(new[name])
        own = getattr(mine, "__module__", module) == module and mine is not other
        if not own:
            continue
        if isinstance(mine, FunctionType) and isinstance(other, FunctionType):
            if mine.__code__.co_freevars == other.__code__.co_freevars:
                mine.__code__, mine.__defaults__ = other.__code__, other.__defaults__
                mine.__kwdefaults__ = other.__kwdefaults__
        elif isinstance(mine, type) and isinstance(other, type):
            _replace(vars(mine), vars(other), module, partial(setattr, mine))
        elif isinstance(mine, dict) and isinstance(other, dict):
            _replace(mine, other, module, mine.__setitem__)
        elif isinstance(mine, int | float | tuple | None) and repr(mine) != repr(other):
            put(name, other)


def _function(value):
    """Return the function behind decorators and properties."""
    for name in ("__wrapped__", "fget", "func", "__func__"):
        while not isinstance(value, type) and isinstance(inner := getattr(value, name, None), FunctionType):
            value = inner
    return value


class Driver:
    """The plugin: in place of pytest's loop over the tests, one over the mutants."""

    def __init__(self, mutants, jobs, seconds):
        self.mutants, self.jobs, self.seconds, self.results = mutants, jobs, seconds, {}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            print(report.longreprtext)

    def pytest_runtestloop(self, session):
        self.session = session
        self.learn()
        state = _digest(json.dumps(sorted((test, sorted(own)) for test, (_, own) in self.reached.items())))
        log = WORK / "tried.jsonl"
        known = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
        # What was killed is dead; survivors face new tests.
        self.results = {key: result for key, result, tests in known if result != "survived" or tests == state}
        left = [mutant for mutant in self.mutants if mutant.key not in self.results]
        running, done, began = {}, 0, time.perf_counter()
        gc.collect()
        gc.freeze()  # or each child would copy what it only counts
        with log.open("a", encoding="utf-8") as file:
            for mutant in [*left, *[None] * self.jobs]:
                if len(running) == self.jobs or running and not mutant:
                    pid, status = os.wait()
                    status, tried = os.waitstatus_to_exitcode(status), running.pop(pid)
                    result = "survived" if not status else "too long" if status == -signal.SIGALRM else "killed"
                    self.results[tried.key], done = result, done + 1
                    file.write(json.dumps([tried.key, result, state]) + "\n")
                    file.flush()
                    ahead = (time.perf_counter() - began) / done * (len(left) - done) / 60
                    print(f"{done}/{len(left)} {tried.path}:{tried.line} {result}, {ahead:.0f} min left", flush=True)
                if mutant:
                    running[self.start(mutant)] = mutant
        return True

    def learn(self):
        """Note {test: (seconds, [(file, line of a function it calls)])}; run what changed, and one test a fixture."""
        file = WORK / "reached.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        code = "".join((ROOT / path).read_text(encoding="utf-8") for path in SOURCES)
        self.items, fixtures = {item.nodeid: item for item in self.session.items}, set()
        paths = {item.path for item in self.session.items}
        digests = {path: _digest(code + path.read_text(encoding="utf-8")) for path in paths}
        for item in self.session.items:
            new = known.get(item.nodeid, {}).get("digest") != digests[item.path]
            if new or {"train", "test", "trained"} & set(item.fixturenames) - fixtures:
                fixtures |= set(item.fixturenames)
                seen, began, failed = set(), time.process_time(), self.session.testsfailed
                sys.settrace(lambda frame, *_, seen=seen: seen.add(frame.f_code))
                item.ihook.pytest_runtest_protocol(item=item, nextitem=self.session)  # which keeps session fixtures
                sys.settrace(None)
                places = {(os.path.relpath(code.co_filename, ROOT), code.co_firstlineno) for code in seen}
                found = [time.process_time() - began, sorted(place for place in places if place[0] in SOURCES)]
                if new and failed == self.session.testsfailed:
                    known[item.nodeid] = {"digest": digests[item.path], "found": found}
                    file.write_text(json.dumps(known), encoding="utf-8")
        if self.session.testsfailed:
            pytest.exit("the tests fail as they are", 1)
        self.reached = {test: known[test]["found"] for test in self.items}

    def start(self, mutant):
        """Fork a child that tries a mutant; return its process id. It ends with 0 where the mutant survives."""
        if pid := os.fork():
            return pid
        try:
            sink = os.open(WORK / "last.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            signal.alarm(LIMIT[0])
            put_in_place(mutant)
            first, last = mutant.span
            called = [
                (seconds, test) for test, (seconds, own) in self.reached.items()
                if any(path == mutant.path and first <= line <= last for path, line in own)
            ]  # fmt: skip
            spent = 0
            for seconds, test in sorted(called):
                if (spent := spent + seconds) > self.seconds:
                    break
                signal.alarm(int(LIMIT[0] + LIMIT[1] * seconds))
                item = self.items[test]
                item.ihook.pytest_runtest_protocol(item=item, nextitem=self.session)
                if self.session.testsfailed:
                    os._exit(1)
            os._exit(0)
        finally:
            os._exit(2)


def changed(since):
    """Return the lines (path, number) that differ from a commit."""
    command = ["git", "diff", "-U0", since, "--", *SOURCES]
    diff = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    lines, path = set(), ""
    for line in diff.stdout.splitlines():
        path = line.removeprefix("+++ b/") if line.startswith("+++ ") else path
        if hunk := re.match(r"@@ \S+ \+(\d+)(?:,(\d+))? @@", line):
            lines |= {(path, int(hunk[1]) + k) for k in range(int(hunk[2] or 1))}
    return lines


def report(mutants, results):
    """Print what was tried, by module, and write the survivors with their changes."""
    rows, survivors = {}, []
    for mutant in mutants:
        result = results[mutant.key]
        for name in (mutant.path, os.path.dirname(mutant.path), "all"):
            rows.setdefault(name, Counter())[result] += 1
        if result == "survived":
            texts = (mutant.module.code.splitlines(), mutant.code().splitlines())
            diff = list(difflib.unified_diff(*texts, f"a/{mutant.path}", f"b/{mutant.path}", n=0, lineterm=""))
            survivors.append("\n".join([f"{mutant.path}:{mutant.line}", *diff[3:]]))
    print(f"\n{'':36}{'tried':>8}{'killed':>8}{'survived':>10}")
    for name, row in sorted(rows.items()):
        alive, total = row["survived"], row.total()
        print(f"{name:36}{total:8}{total - alive:8}{alive:10}{1 - alive / total:9.1%}")
    (WORK / "survivors.txt").write_text("\n\n".join(survivors) + "\n", encoding="utf-8")
    print(f"\nThe survivors: {(WORK / 'survivors.txt').relative_to(ROOT)}")
    if rows["all"]["survived"] > (1 - LEAST) * len(mutants):
        sys.exit(f"fewer than {LEAST:.0%} are killed")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--since", help="a commit: mutants on the lines changed since only")
    options.add_argument("--every", type=int, default=1, help="each n-th mutant only")
    options.add_argument("--from", type=int, default=0, dest="first", help="the number of the first")
    options.add_argument("--seconds", type=float, default=math.inf, help="of tests for a mutant at most")
    options.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time")
    asked = options.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # threads would not outlast a fork
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    WORK.mkdir(parents=True, exist_ok=True)
    mutants = [mutant for path in SOURCES for mutant in Mutants(path).found][asked.first :: asked.every]
    if asked.since:
        lines = changed(asked.since)
        mutants = [mutant for mutant in mutants if (mutant.path, mutant.line) in lines]
    print(f"{len(mutants)} mutants", flush=True)
    if mutants:
        hypothesis.settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
        hypothesis.settings.load_profile("mutants")
        driver = Driver(mutants, asked.jobs, asked.seconds)
        quiet = ["-o", "addopts=", "-qs", "-p", "no:cacheprovider", "-p", "no:xdist"]
        if status := pytest.main([*quiet, *(f"tests/{name}" for name in PACKAGES)], plugins=[driver]):
            sys.exit(int(status))
        report(mutants, driver.results)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
