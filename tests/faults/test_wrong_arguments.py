"""Wrong arguments of the library's functions and of the command line, in great number."""

import pytest
import test_arguments as arguments

from sparselib import cli, experiments
from sparselib.repro import notebooks, project

CALLS = [
    (call.id, *call.values, argument, value)
    for call in arguments.CALLS
    for argument, kind in call.values[2].items()
    for value in (arguments.WRONG[kind] if isinstance(kind, str) else kind)
]
ODD = [
    "", "x", "-1", "0", "1e99", "-1e99", ".nan", ".inf", "[]", "{}", "[[]]", "{a: 1}", "null", "true", "~", "[1, a]",
    "'", "&a [*a]", "*a", "!!python/object:os.system x", "0x10", "1__0", "2020-01-01", "٣", "\u202e", "x" * 5000,
    "[" * 500, "{[a]: b}", "- 1", "? x", "%", "@", "`", "a\nb", "\t", "💥", "folder:", "folder:/dev", "[0.5, 0.5]",
    "folder:/dev/null", "../../x", "[1.0]", "9" * 400, "-0.0", "1e-320", "{}{}", "{x}", "%s", "\\", "<b>", "|", ">",
    "\x7f",
]  # fmt: skip


class Accepted(Exception):
    """It would be computed now."""


def test_functions(campaign):
    def attempt(rng, number):
        name, function, good, _, argument, value = CALLS[number if campaign.long else rng.randrange(len(CALLS))]
        said = arguments.outcome(function, {**good, argument: value}, argument)
        return said and f"{name} {argument}={str(value)[:40]!r}: {said}"

    campaign("arguments: functions", attempt, short=0, long=len(CALLS))


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPARSELIB_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(project, "build_folder", lambda: tmp_path / "_build")

    def accept(*_, **__):
        raise Accepted

    for place, name in ((cli, "_compute"), (notebooks, "execute"), (notebooks, "execute_all"), (cli.runner, "missing")):
        monkeypatch.setattr(place, name, accept)

    def run(*words):
        monkeypatch.setattr("sys.argv", ["sparselib", *words])
        try:
            cli.main()
        except Accepted:
            return None
        except SystemExit as ended:
            out, err = capsys.readouterr()
            lines = [line for line in err.strip().splitlines() if line.strip()]
            if ended.code in (0, None):
                return None
            if "Traceback" in err or not lines or len(err) > 3000:
                return f"code {ended.code}: {err[:300]!r}"
            one = lines[-1].startswith(("sparselib: ", "Error: ")) or "Usage" in lines[0]
            return None if one and len(lines) <= 5 else f"{len(lines)} lines: {err[:300]!r}"
        return "no exit"

    return run


def test_commands(campaign, call, tmp_path):
    pages = list(experiments.PAGES.items())
    out = str(tmp_path / "out.ipynb")

    def attempt(rng, number):
        name, page = rng.choice(pages)
        field, value = rng.choice(sorted(page.model_fields)), rng.choice(ODD)
        words = rng.choice([
            ["run", name, "-o", out, "--set", f"{field}={value}"],
            ["run", name, "-o", out, "--set", f"{field}={value}"],
            ["reproduce", "--figure", name, "--set", f"{field}={value}"],
            ["status", "--set", f"{field}={value}"],
            ["run", value, "-o", out], ["run", name, "-o", value], ["run", name, "-o", out, "--set", value],
            ["reproduce", "--profile", value], ["reproduce", "--figure", value], ["list", value], ["cell", value],
            ["reproduce", "--jobs", value], ["reproduce", "--scheduler", value], ["verify", "--sample", value],
            ["verify", "--tolerance", value, "--figure", value], ["archive", "-o", value], [value], [f"--{value}"],
        ])  # fmt: skip
        words = [word.replace("\0", "") for word in words]
        said = call(*words)
        return said and f"{[word[:40] for word in words]}: {said}"

    campaign("arguments: command line", attempt, short=30, long=500)
