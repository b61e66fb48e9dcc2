"""Damaged files of every kind that the product reads."""

import json
import shutil
import struct

import nbformat
import numpy as np
import pytest
import toy
from campaign import CONTENTS, FORESEEN, ODD, ROOT, damage, judged
from PIL import Image

from sparselib import checkpoints, data, experiments, models
from sparselib.experiments import fields
from sparselib.repro import archive, book, notebooks, project, published, runner
from sparselib.repro import parameters as typed
from sparselib.repro.store import Store, locked, sha256

GRID = {"nets": 2, "numbers": 2}
PAGE = experiments.PAGES["00_quickstart"]
SOURCES = (*CONTENTS, *ODD)  # for a file that people edit, another one in its place is an edit


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm") / "store"
    runner.compute(toy.grid(**GRID), Store(folder), progress=False)
    return folder, toy.values(toy.grid(**GRID), Store(folder))


@pytest.mark.parametrize(
    "kind, pattern, long",
    [("records", "steps/*/*.json", 60), ("networks", "steps/*/*.safetensors", 30), ("format", "format", 20)],
)
def test_store(campaign, calm, tmp_path, kind, pattern, long):
    whole, expected = calm

    def attempt(rng, number):
        folder = tmp_path / "store"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = rng.choice(sorted(folder.glob(pattern)))
        how = damage(path, rng)

        def call():
            store = Store(folder)
            runner.compute(toy.grid(**GRID), store, progress=False)
            return toy.values(toy.grid(**GRID), store)

        said = judged(call, expected, [path.name, str(folder)])
        return said and f"{how} {path.relative_to(folder)}: {said}"

    campaign(f"file: {kind} of the store", attempt, short=10, long=long)


def test_codes_and_locks(campaign, calm, tmp_path, monkeypatch):
    whole, _ = calm

    def attempt(rng, number):
        folder = tmp_path / "store"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        monkeypatch.setenv("TOY_CODE", "2")
        places = [*folder.glob("code/*.json"), *(p for p in folder.glob("locks/*") if p.is_file())]
        path = rng.choice(sorted(places))
        how = damage(path, rng)
        steps = toy.grid(nets=3, numbers=1)

        def call():
            store = Store(folder)
            told = [runner.reason(step, store) for step in runner.missing(steps, store)]
            with locked(path) if path.parent.name == "locks" else locked(folder / "locks" / "x"):
                pass
            return all(isinstance(text, str) and len(text) < 500 for text in told)

        said = judged(call, True, [path.name, str(folder)], allowed=FORESEEN)
        return said and f"{how} {path.relative_to(folder)}: {said}"

    campaign("file: code records, locks", attempt, short=8, long=30)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_published(campaign, tmp_path, monkeypatch, suffix):
    names = sorted(path.stem for path in (ROOT / "results" / "digits").glob("0*.json"))
    if not names:
        pytest.skip("nothing is published")
    name = min(names, key=lambda n: (ROOT / "results" / "digits" / f"{n}.csv").stat().st_size)
    monkeypatch.setattr(project, "results_folder", lambda: tmp_path)

    def call():
        rows = published.read("digits", name)
        found = published.parameters(experiments.PAGES[name], "digits"), published.origin("digits", name)
        return (None if rows is None else rows.to_csv(), *found)

    def attempt(rng, number):
        shutil.rmtree(tmp_path / "digits", ignore_errors=True)
        shutil.copytree(ROOT / "results" / "digits", tmp_path / "digits")
        expected = call()
        path = tmp_path / "digits" / f"{name}.{suffix}"
        how = damage(path, rng)
        if how == "gone" and suffix == "csv":
            return None
        said = judged(call, expected, [name])
        return said and f"{how}: {said}"

    campaign(f"file: published rows, {suffix}", attempt, short=10, long=40)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook as it stands where it has been run, with its parts as they would be now."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1 + 1", execution_count=1), nbformat.v4.new_markdown_cell("words " * 99)]
    )
    parts = {"template": "t", "parameters": {"seeds": 3}, "code": {"f": "1"}, "steps": ["a"], "versions": {"x": "1"}}
    notebook.metadata.update({"sparselib": {**parts, "published": {}}, notebooks.SEAL: ""})
    path = tmp_path_factory.mktemp("executed") / "page.ipynb"
    path.write_bytes(notebooks._sealed(nbformat.writes(notebook).encode()))
    return path, {**parts, "published": {}}


def test_executed_notebooks(campaign, executed, tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "parts", lambda _: executed[1])
    assert notebooks.why_stale(None, executed[0]) is None

    def attempt(rng, number):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "page.ipynb"
        shutil.copy(executed[0], path)
        how = damage(path, rng, SOURCES)
        said = judged(lambda: isinstance(notebooks.why_stale(None, path), str), True, ["page.ipynb"])
        return said and f"{how}: {said}"

    campaign("file: executed notebooks", attempt, short=15, long=60)


def test_templates(campaign, tmp_path, monkeypatch):
    path = tmp_path / "page.ipynb"
    source = notebooks.template(PAGE)
    monkeypatch.setattr(notebooks, "template", lambda _: path)

    def call():
        notebooks.check_template(notebooks.read_template(PAGE), PAGE)
        return True  # what is still a template is a template that was edited, and its page is run again

    def attempt(rng, number):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        shutil.copy(source, path)
        how = damage(path, rng, SOURCES)
        said = judged(call, True, ["page.ipynb", PAGE.notebook])
        return said and f"{how}: {said}"

    campaign("file: templates", attempt, short=10, long=40)


def test_what_is_built(campaign, tmp_path, monkeypatch):
    monkeypatch.setattr(project, "build_folder", lambda: tmp_path / "_build")
    wanted = {"book/intro.md": b"# Words"}

    def attempt(rng, number):
        shutil.rmtree(tmp_path / "_build", ignore_errors=True)
        html = tmp_path / "_build" / "html"
        for name in ("index.html", "book/page.html", "_static/book.js"):
            (html / name).parent.mkdir(parents=True, exist_ok=True)
            (html / name).write_text(f"<p>{name}</p>" * 20, encoding="utf-8")
        mark = book._rendered()[0]
        mark.write_text(json.dumps({"sources": book._digest(wanted), "built": book._built()}), encoding="utf-8")
        assert book._why_not(wanted) is None
        path = rng.choice([mark, *sorted(p for p in html.rglob("*") if p.is_file())])
        how = damage(path, rng, SOURCES)
        if path == mark and mark.is_file() and not mark.is_symlink():
            try:  # a digit of white space says the same
                same = json.loads(mark.read_bytes())["built"] == book._built()
            except Exception:
                same = False
            if same:
                return None
        said = judged(lambda: isinstance(book._why_not(wanted), str), True, ["html"])
        return said and f"{how} {path.name}: {said}"

    campaign("file: built pages, their digest", attempt, short=15, long=50)


def test_profiles_and_choices(campaign, tmp_path, monkeypatch, strengths):
    monkeypatch.setattr(project, "results_folder", lambda: tmp_path / "results")
    profile = ROOT / "sparselib" / "experiments" / "profiles" / "digits.yml"
    choices = ROOT / "results" / "digits" / "choices.csv"

    def attempt(rng, number):
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        (tmp_path / "results" / "digits").mkdir(parents=True)
        pages = experiments.PAGES.values()
        if rng.random() < 0.5:
            path = tmp_path / "results" / "digits" / "digits.yml"
            shutil.copy(profile, path)
            how = damage(path, rng, SOURCES)

            def call():
                found = typed.profiles(path.parent)
                if "digits" in found:  # what is still a profile was edited
                    typed.check_profile(path, found["digits"], pages)
                return True

            said = judged(call, True, ["digits.yml"])
        else:
            path = tmp_path / "results" / "digits" / "choices.csv"
            shutil.copy(choices, path)
            how = damage(path, rng, SOURCES)
            named = ["choices.csv", "choices of profile"]
            said = judged(lambda: bool(strengths("digits")), True, named, allowed=(*FORESEEN, ValueError))
        return said and f"{how} {path.name}: {said}"

    assert fields.choices  # `strengths` is what reads them, whatever stands in for it
    campaign("file: profiles, choices", attempt, short=10, long=50)


def test_checkpoints(campaign, tmp_path):
    net = models.build("convnet", in_channels=1, num_classes=3, image_size=8, width=2)
    path = tmp_path / "net.safetensors"

    def attempt(rng, number):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        checkpoints.save_model(net, path)
        # A changed weight is a weight: only the store, which keeps checksums, can tell.
        how = damage(path, rng, [kind for kind in SOURCES if kind not in ("bit", "NUL")])
        allowed = (ValueError, OSError)
        said = judged(lambda: checkpoints.load_model(path) is None, "a network", ["net.safetensors"], allowed)
        return said and f"{how}: {said}"

    campaign("file: networks of people", attempt, short=10, long=30)


def test_archives(campaign, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        names = {"README.md": b"words " * 50, "results/digits/a.csv": b"a,b\n1,2\n", "html/index.html": b"<p>" * 99}
        for name, content in names.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        manifest = folder / archive.MANIFEST
        told = "".join(f"{sha256(content)}  {name}\n" for name, content in sorted(names.items()))
        manifest.write_text(told, encoding="utf-8")
        assert archive.check(folder) == 3
        path = rng.choice([manifest, *(folder / name for name in names)])
        how = damage(path, rng, SOURCES)
        if not manifest.is_file() and archive.check(folder) is None:
            return None  # no archive: `verify` says so
        said = judged(lambda: archive.check(folder), "refused", [path.name, archive.MANIFEST, "not as archived"])
        return said and f"{how} {path.name}: {said}"

    campaign("file: unpacked archives", attempt, short=10, long=40)


def test_images(campaign, tmp_path):
    def attempt(rng, number):
        folder = tmp_path / str(number)
        for split in ("train", "test"):
            for label in ("a", "b"):
                (folder / split / label).mkdir(parents=True)
                pixels = np.frombuffer(rng.randbytes(64), np.uint8).reshape(8, 8)
                Image.fromarray(pixels).save(folder / split / label / f"x.{rng.choice(['png', 'jpg', 'tif', 'bmp'])}")
        path = rng.choice(sorted(folder.rglob("x.*")))
        how = damage(path, rng, SOURCES)

        def call():
            found = data.load(f"folder:{folder}", path.parts[-3])
            return len(found) >= 1  # other pixels are other data: their fingerprint is part of every key

        said = judged(call, True, [path.name, path.parent.name], allowed=(ValueError, FileNotFoundError))
        return said and f"{how} {path.name}: {said}"

    campaign("file: folders of images", attempt, short=10, long=50)


def test_mnist(campaign, tmp_path):
    def attempt(rng, number):
        raw = tmp_path / str(number) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 5, 28, 28) + rng.randbytes(3920))
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 5) + bytes([1, 2, 3, 4, 5]))
        path = rng.choice(sorted(raw.glob("train*")))
        how = damage(path, rng, SOURCES)
        allowed = (ValueError, FileNotFoundError)

        def call():
            return len(data.load("mnist", root=tmp_path / str(number))) >= 1

        said = judged(call, True, ["mnist", str(raw)], allowed)
        return said and f"{how} {path.name}: {said}"

    campaign("file: MNIST", attempt, short=8, long=40)


@pytest.mark.parametrize("name", ["_config.yml", "_toc.yml"])
def test_settings_of_the_book(campaign, tmp_path, monkeypatch, name):
    def attempt(rng, number):
        root = tmp_path / str(number)
        shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
        (root / "notebooks").mkdir()
        shutil.copy(ROOT / "_config.yml", root)
        (root / "book" / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n", encoding="utf-8")
        (root / "book" / "intro.md").write_text("# Words\n", encoding="utf-8")
        monkeypatch.setattr(project, "root", lambda: root)
        path = root / name if name == "_config.yml" else root / "book" / name
        how = damage(path, rng, ["cut", "empty", "foreign", "NUL", "noise", "folder", "pipe", "loop", "gone"])
        try:
            book.build({})
        except book.BookError as error:
            return None if "\n" in str(error) else f"{how}: {error}"
        except OSError as error:
            return None if name in str(error) else f"{how}: {error}"
        return None  # settings that still are settings

    campaign(f"file: {name}", attempt, short=0, long=5)
