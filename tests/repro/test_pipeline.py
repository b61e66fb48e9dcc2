"""The whole path, as a user takes it, in a copy of the project: compute, run, render, change, look again."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from sparselib import experiments

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "epochs": 2,
    "width": 8,
    "seeds": 2,
    "sparsities": "[0,0.5]",
    "headline_sparsity": 0.5,
    "finetune_epochs": 1,
    "detectors": "[msp,energy,sensnorm,sensnorm-ayle]",
    "anomalies": "[uniform,heldout]",
    "recipes": "[magnitude after,magnitude after units]",
    "wide_width": 6,
    "narrow_widths": "[3]",
    "noisy_width": 4,
    "noisy_epochs": 2,
    "noisy_recipes": "[random before]",
    "noisy_sparsities": "[0.5]",
    "eps_linf": "[0.1]",
    "eps_l2": "[0.5]",
    "curve_linf": "[0.1]",
    "curve_l2": "[0.5]",
    "attack_steps": 5,
    "attack_samples": 32,
    "autoattack_samples": 0,
    "shifts": "[fog:3]",
    "mask_sparsities": "[0.5]",
    "mask_epochs": 1,
    "objectives": "[adversarial]",
    "members": 2,
    "unit_sparsities": "[0.5]",
    "scratch_sparsities": "[0.5]",
    "certify_n": 20,
    "certify_samples": 8,
    "gradient_detectors": "[msp,gradnorm layers:all]",
    "ablation": "[sensnorm norm:1]",
    "rounds": 2,
    "attack_restarts": 1,
    "controls": "[magnitude]",
}
FIVE = set(experiments.PAGES["05_sensnorm"].model_fields)
PAGES = 28
SETS = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]


class Project:
    """A copy of the project in which commands run."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("sparselib", "book", "notebooks", "_config.yml", "pyproject.toml", "CHANGELOG.md"):
            source, target = ROOT / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def __call__(self, *arguments, program=("-m", "sparselib"), code=0):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SPARSELIB")}
        done = subprocess.run(
            [sys.executable, *program, *map(str, arguments)], capture_output=True, encoding="utf-8", cwd=self.folder,
            timeout=1800, env={**environment, "PYTHONPATH": str(self.folder)},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def edit(self, module, old, new):
        path = self.folder / "sparselib" / module
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def built(project):
    """The project, with its book built once on a small grid."""
    done = project("reproduce", *SETS)
    index = Path(done.stdout.strip().splitlines()[-1])
    assert index == project.folder / "_build" / "html" / "index.html" and index.is_file()
    return project


def test_a_second_run_computes_nothing(built):
    done = built("reproduce", *SETS)
    assert re.search(r"\d+ steps, 0 to compute", done.stderr)
    assert done.stderr.count(": fresh") == PAGES and ": run in" not in done.stderr


def _to_compute(project, *arguments):
    """What `status` says is to compute, in all."""
    return sum(int(n) for n in re.findall(r"^  (\d+) to compute", project("status", *arguments).stdout, re.M))


def test_another_parameter_computes_only_what_is_new(built):
    five = [part for name, value in SMALL.items() if name in FIVE for part in ("--set", f"{name}={value}")]
    assert _to_compute(built, "--figure", "5", *five) == 0
    assert _to_compute(built, "--figure", "5", *five, "--set", "anomalies=[uniform,heldout,textures]") == (
        2 * 2 * 4 + 2 * 1  # 2 seeds × 2 sparsities × 4 detectors, the ablation
    )
    told = built("status", "--figure", "5", *five, "--set", "seeds=3").stdout
    assert "to compute: new parameters" in told and told.count("to compute") == 1


def test_restyling_a_figure_computes_nothing(built):
    built.edit("experiments/plots.py", '"font.size": 10.5,', '"font.size": 11.5,')
    told = built("status", *SETS).stdout
    assert "experiments.plots.STYLE changed" in told and "to compute" not in told
    built.edit("experiments/plots.py", '"font.size": 11.5,', '"font.size": 10.5,')


def test_bad_arguments_from_the_shell_end_with_code_2_and_one_line(project):
    done = project("run", "5", "-o", "x.ipynb", "--set", "sedes=2", code=2)
    assert done.stderr.startswith("sparselib: unknown parameter 'sedes' of 05_sensnorm; did you mean 'seeds'?")
    assert len(done.stderr.strip().splitlines()) == 1 and not (project.folder / "x.ipynb").exists()


def _shown(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    figure = next(o for o in outputs if "sparselib" in o.metadata)
    told = [str(o.get("data", {}).get("text/html", "")) for o in outputs]
    return figure.data["image/svg+xml"], "\n".join([figure.metadata["sparselib"]["caption"], *told])


def test_run_and_plain_papermill_give_different_correctly_labelled_figures(built):
    names = ("epochs", "width", "finetune_epochs", "detectors", "ablation", "rounds")
    sets = [part for name in names for part in ("--set", f"{name}={SMALL[name]}")]
    sets += ["--set", "anomalies=[uniform]", "--set", "sparsities=[0,0.5]", "--set", "seeds=2"]
    built("run", "notebooks/05_sensnorm.ipynb", *sets, "-o", "a.ipynb")
    small = {name: SMALL[name] for name in (*names, "anomalies", "sparsities")}
    yaml = "\n".join(f"{name}: {value}" for name, value in {**small, "seeds": 1}.items())
    program = ("-m", "papermill", "--no-progress-bar")
    built("notebooks/05_sensnorm.ipynb", "b.ipynb", "-y", yaml, program=program)
    (first, first_text), (second, second_text) = (_shown(built.folder / name) for name in ("a.ipynb", "b.ipynb"))
    assert first != second
    assert "seeds 0–1" in first_text and "[0.0, 0.5]" in first_text
    assert "seed 0" in second_text and "seeds 0–1" not in second_text
    for text in (first_text, second_text):
        assert "rerun: <code>sparselib run notebooks/05_sensnorm.ipynb" in text
    failed = built("notebooks/05_sensnorm.ipynb", "c.ipynb", "-p", "sedes", "2", program=program, code=1)
    assert "did you mean" in failed.stderr and "seeds" in failed.stderr


def test_an_edit_makes_stale_exactly_what_depends_on_it(built):
    def stale():
        lines = built("status", *SETS).stdout.splitlines()
        pages = {line.split(":")[0]: line for line in lines if not line.startswith(" ")}
        return {page: line for page, line in pages.items() if "stale" in line}, "\n".join(lines)

    assert stale()[0] == {}
    built.edit("robustness/attacks.py", '"""Return the direction (N, C, H, W)', '"""Give the direction (N, C, H, W)')
    assert stale()[0] == {}, "words do not count"

    built.edit("robustness/attacks.py", "return gradient.sign()", "return +gradient.sign()")
    found, text = stale()
    attacking = {"00_quickstart", "unusual", "tickets", "attacks", "believed", "shifts", "certificates", "detection"}
    attacking |= {"sensnorm", "own_network", "own_detector", "01_sparsity_and_robustness", "06_verdict"}
    attacking |= {"03_subnetworks_without_training", "04_structured_sparsity_and_cost", "07_a_network_of_others"}
    assert set(found) == attacking, "these attack, or search masks that may, or judge them"
    assert "robustness.attacks.steepest changed" in found["00_quickstart"]
    assert "to compute: robustness.attacks.steepest changed" in text

    built.edit("detection/baselines.py", "return -self.temperature *", "return +-self.temperature *")
    found, text = stale()
    detecting = {"confidence", "thresholds", "testing", "own_data", "02_sparsity_and_anomaly_detection", "05_sensnorm"}
    assert set(found) == attacking | detecting
    assert found["02_sparsity_and_anomaly_detection"].endswith("its steps changed")
    assert "8 to compute: detection.baselines.Energy changed" in text  # 2 seeds × 2 sparsities × 2 anomalies


# Images further down are fetched when they come into view.
FETCHED = """all => Promise.all(all.map(image => {
  image.loading = 'eager';
  return image.decode().catch(() => null).then(() => [image.alt, image.naturalWidth]);
}))"""


@pytest.mark.browser
def test_every_page_opens_from_the_file_system_with_the_network_off(built, chromium):
    html = built.folder / "_build" / "html"
    pages = [path for part in ("book", "notebooks") for path in sorted((html / part).glob("*.html"))]
    assert len(pages) >= 5
    context = chromium.new_context(offline=True)
    for path in pages:
        page, asked, failed = context.new_page(), [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("requestfailed", lambda request, failed=failed: failed.append(request.url))
        page.on("pageerror", lambda error, failed=failed: failed.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        assert asked and not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))], path
        assert not failed, path
        images = page.eval_on_selector_all("main img:not(.only-dark)", FETCHED)
        assert all(len(alt) > 40 and width > 0 for alt, width in images), path
        if path.parent.name == "notebooks":
            assert images, path
            assert 1 <= page.locator("main .stamp code").count() <= len(images)
            assert page.locator("main figcaption .caption-number").count() == len(images)
        page.close()
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_pages_fit_and_text_can_be_read(built, chromium, theme, width):
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    notebooks = ("00_quickstart", "01_sparsity_and_robustness", "05_sensnorm", "06_verdict")
    for name in (*(f"notebooks/{n}" for n in notebooks), "book/rerun", "book/intro"):
        page.goto((built.folder / "_build" / "html" / f"{name}.html").as_uri())
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        selector = "main p, main figcaption, main .stamp, main summary, main td"
        contrasts = page.eval_on_selector_all(selector, CONTRASTS)
        assert contrasts and min(contrasts) >= 4.5, (name, min(contrasts))
    page.close()


@pytest.mark.browser
def test_interactive_pieces_work_by_keyboard(built, chromium):
    page = chromium.new_page()
    concepts = built.folder / "_build" / "html" / "book" / "concepts"
    for name, kind, changes in (("attacks", "attack", "ε = "), ("thresholds", "threshold", "At threshold ")):
        page.goto((concepts / f"{name}.html").as_uri())
        piece = page.locator(f'[data-explorer="{kind}"]')
        assert piece.get_attribute("data-ready") == "yes"
        told = piece.locator(".told")
        before = told.inner_text()
        assert before.startswith(changes)
        piece.locator("input[type=range]").first.focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert told.inner_text() != before and told.inner_text().startswith(changes)
        piece.locator("select").select_option(index=1)
        assert piece.locator("svg").count() == {"attack": 2, "threshold": 3}[kind]
    at_95 = piece.get_by_role("button", name="95 % of anomalies caught")
    at_95.focus()
    page.keyboard.press("Enter")
    caught = float(re.search(r"([\d.]+) % of the anomalies are caught", told.inner_text())[1])
    assert caught >= 95
    page.close()


# WCAG contrast of each element's text against the nearest opaque background behind it.
CONTRASTS = """all => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  return all.filter(e => e.innerText && e.innerText.trim() && e.offsetParent).map(e => {
    let behind = e, ground = [255, 255, 255];
    while (behind) {
      const colour = parse(getComputedStyle(behind).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) { ground = colour; break; }
      behind = behind.parentElement;
    }
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}"""
