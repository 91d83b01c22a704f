"""Models that come in: imported, refused, edited."""

import json

import pytest
from safetensors.torch import load_file, save_file

from tasks.config.sections import ModelSource
from tasks.import_model import import_model, model_files, store_model
from tasks.models.locate import locate_model
from tasks.models.weight_files import WEIGHTS
from tasks.pipeline.dry_run import PLAN, Plan
from tasks.pipeline.site import Site
from tasks.store.artifacts import Artifact, Provenance, files_digest
from tasks.store.drafts import Draft
from tasks.store.folders import Store


def edit(path, **changes):
    """Change entries of a JSON file; None takes one out."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def source(path, **fields):
    return ModelSource(path=str(path), **fields)


def files(folder, role="policy", **fields):
    return model_files(folder, source(folder, **fields), role)


def stored(folder, store, role="policy", **fields):
    """Import a model as the stage does, without Prefect."""
    where = source(folder, **fields)
    given = locate_model(where)
    found = model_files(given, where, role)
    artifact = Artifact(kind="model", uri=str(given), digest=files_digest(found))
    return store_model.body(Draft(store, Provenance(stage="store_model", version=1, key="k")), artifact, where, role)


def refused(folder, message, tmp_path, role="policy", **fields):
    """Check that a run stops at the model, before anything is stored."""
    store = Store(str(tmp_path / "store"))
    token = PLAN.set(Plan(tmp_path))
    try:
        with pytest.raises(ValueError, match=message) as caught:
            import_model(Site(store), source(folder, **fields), role)
    finally:
        PLAN.reset(token)
    assert not (tmp_path / "store").exists()
    return str(caught.value)


def rewrite(folder, change):
    """Save the weights of a folder again, as `change` returns them."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
