import os
import shutil

import pytest
import torch

from sparselib import data, models, training
from sparselib.experiments import fields
from sparselib.robustness import shifts

torch.set_num_threads(1)  # the cores are shared by the test processes


def pytest_collection_modifyitems(items):
    lacking = {}
    if os.environ.get("SPARSELIB_TEST_NETWORK") != "1":
        lacking["network"] = "needs the internet: set SPARSELIB_TEST_NETWORK=1"
    if not torch.cuda.is_available():
        lacking["gpu"] = "needs a CUDA device"
    for item in items:
        for mark, reason in lacking.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def strengths():
    """Stand-ins for the choices of profiles whose data are not at hand, so that none have been made."""
    known = dict.fromkeys(shifts.SHIFTS.own, 3) | dict.fromkeys(("pgd", "eps", "mask_eps", "autoattack_eps"), 0.1)
    read = fields.choices

    def choices(profile):
        try:
            return read(profile)
        except ValueError:
            return {**known, "profile": profile, "eps_linf": [0.05, 0.1, 0.2]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fields, "choices", choices)
        yield read


@pytest.fixture(scope="session")
def train():
    return data.load("digits")


@pytest.fixture(scope="session")
def test():
    return data.load("digits", "test")


@pytest.fixture(scope="session")
def trained(train):
    """A small network that has learnt the digits. Shared: do not change it."""
    net = models.build("convnet", in_channels=1, num_classes=10, image_size=8, width=16, mean=0.3, std=0.4)
    training.fit(net, train, epochs=15, progress=False)
    return net.eval()


@pytest.fixture
def grouped():
    """An untrained float64 network with a strided, a dilated and a grouped convolution, batch-norm and biases."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(2, 6, 3, stride=2, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU()),
        *(torch.nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3), torch.nn.ReLU(), torch.nn.Flatten()),
        *(torch.nn.Linear(6 * 16, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4)),
    ).double()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(scope="session")
def chromium():
    """The one browser of all tests: Playwright cannot be started twice in a process."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs chromium on the PATH")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()
