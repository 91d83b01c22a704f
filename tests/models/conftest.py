"""Fixtures for tests of models."""

import shutil

import pytest


@pytest.fixture
def model(test_data, tmp_path):
    """Return a copy of the story model to spoil."""
    return shutil.copytree(test_data / "stories260k", tmp_path / "model")
