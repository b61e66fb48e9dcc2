import sys
from pathlib import Path

import pytest
from campaign import Campaign

sys.path.insert(0, str(Path(__file__).parents[1] / "repro"))  # the toy pipeline
sys.path.insert(0, str(Path(__file__).parents[1]))
WHOLE = Campaign()


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def campaign():
    return WHOLE


def pytest_terminal_summary(terminalreporter):
    if WHOLE.lines:
        terminalreporter.write_line(f"FAULTS_SEED={WHOLE.seed}\n{WHOLE.table()}")
    if WHOLE.long and WHOLE.lines:
        WHOLE.save()
