"""What a stage may bring beside its body: what would fail later, or do nothing, is refused where the stage is made."""

import pytest
from doubles import SOURCE, Double, Settings

from tasks.pipeline.options import Work
from tasks.pipeline.site import Site
from tasks.store.artifacts import NOTHING
from tasks.store.drafts import Draft
from tasks.store.folders import Store


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preview": lambda source, labels: (NOTHING, {})}, r"preview asks for \['labels'\], which the body does not"),
        ({"preview": lambda artifact: (NOTHING, {})}, "preview asks for .*artifact"),
        ({"preview": lambda *, source: (NOTHING, {})}, "preview must name its arguments"),
        ({"preview": 5}, "preview = 5 is no function"),
        ({"given": lambda out: None}, "given asks for .*out"),
        ({"page": lambda source: []}, "page asks for .*source"),
        ({"split": lambda source: []}, "split needs work"),
        ({"previw": lambda source: (NOTHING, {})}, "previw is no option of a stage: there are preview, given"),
        ({"gpus": "setings"}, "gpus = 'setings' is no section of the configuration"),
        ({"run_name": "{sorce.rows} rows"}, "run_name asks for .*sorce"),
        ({"retries": -1}, "retries = -1 must be a number"),
        ({"retries": "2"}, "retries = '2' must be a number"),
        ({"reads": {"settings": ["factr"]}}, r"reads names \['factr'\], which are no fields of settings"),
        ({"reads": {"settings": "factor"}}, "reads names factor, which are no fields of settings"),
        ({"reads": {"source": ["rows"]}}, "reads names source, which is no section"),
        ({"reads": {"setings": ["factor"]}}, "reads names setings, which is no section"),
        ({"dropped": ["source"]}, "dropped = .*must be a list of inputs that the body has no more"),
        ({"dropped": "annotated"}, "dropped = 'annotated' must be a list"),
        ({"same": {"source": "source"}}, r"same names \['source'\] as the same as itself"),
        ({"same": {"source": "reference"}}, "same asks for .*reference"),
        ({"same": {"settings": "source"}}, "same asks for .*settings"),
    ],
)
def test_an_option_that_cannot_work_is_refused(options, message):
    with pytest.raises(TypeError, match=f"double: {message}"):
        Double(**options)


def test_options_that_work_are_taken(store):
    options = {
        "preview": lambda out, store, source: (NOTHING, {}),
        "work": lambda store: Work("lock", lambda: 0),
        "split": lambda store, source, shards: [],
        "page": lambda artifact: [],
        "gpus": "sampling",
        "run_name": "{source.rows} rows",
        "reads": {"settings": ["factor"]},
    }
    stage = Double(**options).stage
    keys = [stage.draft(Site(store), SOURCE, Settings(**given)).provenance.key for given in ({}, {"factor": 3})]
    assert keys[0] != keys[1]


def test_what_a_body_does_not_read_is_not_in_its_key(store: Store):
    stage = Double(reads={"settings": ["inner"]}).stage

    def key(**given: int) -> str:
        draft: Draft = stage.draft(Site(store), SOURCE, Settings(**given))
        return draft.provenance.key

    assert key(factor=3) == key()
