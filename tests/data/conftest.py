"""Fixtures for tests of data."""

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.config.sections import ModelSource
from tasks.import_model import model_files
from tasks.store.artifacts import Artifact
from tasks.store.folders import Store


@pytest.fixture(scope="session")
def policy(test_data, tmp_path_factory):
    """Return the story model as it is imported: with a chat template, context 512."""
    source = ModelSource(path=str(test_data / "stories260k"))
    folder = tmp_path_factory.mktemp("policy")
    for name, content in model_files(test_data / "stories260k", source, "policy").items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return Artifact(kind="model", uri=str(folder), digest="policy")


@pytest.fixture
def local(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def server(request):
    """Know of no server but the one that the test asks for."""
    unset = () if "prefect_harness" in request.fixturenames else {PREFECT_API_URL}
    with temporary_settings(restore_defaults=unset):
        yield
