"""README, CONTRIBUTING and docs/: links, quotations, and that a test runs every command in them."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import make_store
import pytest
from runs import ROOT

import flows.arguments
import flows.quickstart
from flows.config_files import load_config
from tasks.data.feedback import COLUMNS as FEEDBACK
from tasks.data.records import parse_record
from tasks.store.schemas import SCHEMAS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tasks/README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
MARKS = ("# Needs a GPU.", "# Needs a cluster.", "# Needs the network.")
"""First line of a block that no test runs."""
RUN_BY = {
    "make install": ".ci/run",
    "make check": ".ci/run",
    "make test": ".ci/run",
    "make docs": "test_make_docs",
    "make quickstart": "test_the_quickstart",
    "make chat": "test_the_chain_of_chat",
    "make up": "test_make_up",
    "source .rsdpo/up/env": "test_the_env_file_can_be_sourced",
    "make bench": "test_both_sides",
    "make bench-system": "test_new_prompts",
    "make browse": "test_make_browse",
    "make faults": "test_faults",
    "python -m flows.quickstart": "test_the_quickstart",
    "python -m flows.rs_dpo": "test_a_dry_run_prints_a_table",
    "python -m flows.compare": "test_a_dry_run_lists_the_runs",
    "export MT_BENCH=mt_bench": "test_the_shipped_configuration_is_planned",
    "python -m flows.judge_policies": "test_the_shipped_configuration_is_planned",
    "python -m flows.judge_rewards": "test_what_is_typed_wrong_in_judged_rewards_is_refused",
    "python -m flows.rounds": "test_what_is_typed_wrong_in_rounds_is_refused",
    "python -m flows.ask": "test_both_policies_answer_and_a_seed_answers_again",
    "python -m flows.add_prompts": "test_the_report_for_people",
    "python -m flows.add_preferences": "test_new_known_and_duplicate_preferences",
    "python -m flows.publish": "test_what_a_dry_run_prints",
    "python -m flows.revise": "test_revisions_are_pairs_and_demonstrations_that_a_run_can_read",
    "python -m flows.browse": "test_a_store_is_served_until_it_is_interrupted",
    "python -m flows.store prune": "test_pruning_tells_what_goes",
    "python -m flows.store compact": "test_small_parts_are_merged_and_their_rows_counted_once",
    "python -m flows.store": "test_a_lineage_is_printed",
    "python -m flows.status": "test_half_a_run",
    "python -m pytest tests/selection/test_threshold.py": "test_threshold_is_strict",
    "python -m tests.defaults": "test_the_golden_file_is_up_to_date",
    "python -m tests.make_store": "test_make_store",
    "python docs/settings.py": "test_every_setting_is_listed_as_it_is",
    "python docs/monitors.py": "test_every_monitor_is_listed_as_it_is",
    "python docs/rewards.py": "test_the_plot",
}
"""Beginning of a command -> the test that runs it."""
COMMANDS = (
    "compare",
    "judge_policies",
    "judge_rewards",
    "rounds",
    "revise",
    "ask",
    "add_prompts",
    "add_preferences",
    "publish",
    "browse",
    "store",
    "status",
)
PARSERS = {f"flows.{name}": getattr(flows.arguments, f"{name}_parser") for name in COMMANDS}
PARSERS["flows.rs_dpo"] = flows.arguments.run_parser


def blocks(page, *languages):
    """Return the lines of each fenced block in one of the languages."""
    fenced = re.findall(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text(), re.M | re.S)
    return [text.strip().splitlines() for language, text in fenced if language in languages]


def commands(page, marked):
    """Return the commands of the blocks that are marked, or of those that are not; in a console they follow a `$`."""
    bash = [line for lines in blocks(page, "bash") if (lines[0] in MARKS) == marked for line in lines]
    console = [line.removeprefix("$ ") for lines in blocks(page, "console") for line in lines if line.startswith("$ ")]
    texts = bash if marked else [*bash, *console]
    found = [" ".join(shlex.split(text, comments=True)).replace(".venv/bin/", "") for text in texts]
    return [command for command in found if command]


UNMARKED = [(page.name, command) for page in PAGES for command in commands(page, marked=False)]
ALL = UNMARKED + [(page.name, command) for page in PAGES for command in commands(page, marked=True)]


def test_there_are_commands():
    assert len(UNMARKED) > 15


@pytest.mark.parametrize(("page", "command"), UNMARKED)
def test_every_command_is_run_by_a_test(page, command):
    covering = [RUN_BY[start] for start in RUN_BY if f"{command} ".startswith(f"{start} ")]
    assert covering, f"{page}: no test in RUN_BY runs `{command}`, and its block has none of {MARKS}"
    if covering[0] == ".ci/run":
        assert command in (ROOT / ".ci/run").read_text()
        return
    (file,) = (text for text in TESTS if re.search(rf"^def {covering[0]}\(", text, re.M))
    module = re.search(r"python (?:-m )?([\w./]+)", command)
    assert module is None or module[1].rpartition(".")[2].rpartition("/")[2] in file


def test_no_command_is_listed_for_nothing():
    unused = [start for start in RUN_BY if not any(f"{command} ".startswith(f"{start} ") for _, command in UNMARKED)]
    assert not unused


@pytest.mark.parametrize(("page", "command"), [pair for pair in ALL if "python -m " in pair[1]])
def test_every_command_has_arguments_that_exist(page, command):
    module, *arguments = shlex.split(command.partition("python -m ")[2])
    if module == "flows.quickstart":
        module, arguments = "flows.rs_dpo", [flows.quickstart.CONFIG, *arguments]
    if module not in PARSERS:
        source = "" if module == "pytest" else (ROOT / f"{module.replace('.', '/')}.py").read_text()
        assert not [flag for flag in arguments if flag.startswith("--") and f'"{flag}"' not in source]
        return
    if module == "flows.store" and arguments[0] not in ("prune", "compact"):
        arguments = ["list", *arguments]
    options = PARSERS[module]().parse_args(arguments)
    if module == "flows.rs_dpo":
        load_config(str(ROOT / options.config), options.set)


@pytest.mark.parametrize(("page", "command"), [pair for pair in ALL if pair[1].startswith("make ")])
def test_every_target_is_in_the_makefile(page, command):
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_commands_are_marked_as_such(page):
    """A command in a block of another language would be run by nobody."""
    told = [line for lines in blocks(page, "", "sh", "shell", "text") for line in lines]
    assert not [line for line in told if re.match(r"(\$ |make |\.venv/bin/|python )", line)]


# What the pages say.


def test_readme_is_read_in_two_minutes():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 200
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == [
        "Three commands",
        "What comes out",
        "The flow",
        "Your own model and data",
        "What is computed again",
        "Where it runs",
        "What it costs",
        "Limits",
        "Where to read on",
    ]


def test_readme_quotes_the_flow():
    (quoted,) = blocks(ROOT / "README.md", "python")
    flow = [line.strip() for line in (ROOT / "flows/rs_dpo.py").read_text().splitlines()]
    start = flow.index(quoted[0])
    assert [line.strip() for line in quoted] == flow[start : start + len(quoted)]


def test_every_setting_is_listed_as_it_is():
    page = runpy.run_path(str(ROOT / "docs/settings.py"))["page"]
    assert (ROOT / "docs/configuration.md").read_text() == page(), "run: python docs/settings.py"


def test_every_monitor_is_listed_as_it_is():
    page = runpy.run_path(str(ROOT / "docs/monitors.py"))["page"]
    assert (ROOT / "docs/report.md").read_text() == page(), "run: python docs/monitors.py"


def test_the_tables_of_the_store_have_the_columns_that_are_listed():
    rows = re.findall(r"^\| (\w+) \| [^|`]+ \| (`.*`) \|$", (ROOT / "docs/store.md").read_text(), re.M)
    listed = {name: re.findall(r"`(\w+)`", columns) for name, columns in rows}
    assert len(listed) == 13
    assert listed == {name: SCHEMAS[name].names for name in listed}


def test_rows_of_the_page_on_data_are_read():
    preference, conversation = (json.loads(line) for line in blocks(ROOT / "docs/data.md", "json")[0])
    for role in ("prompts", "demonstrations", "preferences"):
        assert parse_record(preference, role).messages == [{"role": "user", "content": "What colour is the seal?"}]
    assert parse_record(conversation, "demonstrations").messages == [{"role": "user", "content": "Hello"}]
    (feedback,) = (json.loads(line) for line in blocks(ROOT / "docs/data.md", "json")[1])
    assert tuple(feedback) == FEEDBACK


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them of plain ones."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)):
        if link.startswith(("https://arxiv.org/", "https://keepachangelog.com/", "https://semver.org/")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    of_recipes = {"tasks/diversity.py", "tasks/selection/best_vs_median.py"}
    named = set(re.findall(r"`((?:tasks|flows|infra|tests|benchmarks|configs|docs)/[\w/.-]+)`", page.read_text()))
    assert not [name for name in named - of_recipes if not (ROOT / name).exists()]


def test_pictures_are_small_and_shown():
    shown = "".join(page.read_text() for page in PAGES)
    for picture in (ROOT / "docs/img").iterdir():
        assert picture.stat().st_size < 200_000, picture.name
        assert f"img/{picture.name}" in shown


# The commands that only these pages are about.


def test_make_docs(tmp_path):
    """A dead link fails; nothing of the site is loaded from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 9
    for page in pages:
        assert not re.search(r"""<(script|img|link)[^>]+(src|href)=["']https?:""", page.read_text()), page


SMALL = ["data.max_prompts=24", "data.max_evaluation_prompts=8", "sft.max_steps=30", "reward_model.max_steps=12"]
SMALL += ["sampling.k=4", "sampling.max_new_tokens=16", "pairs.tau=0.01", "pairs.truncated=keep", "dpo.max_steps=12"]


@pytest.mark.slow
def test_the_quickstart(tmp_path):
    """What `make quickstart` runs, on fewer prompts and steps."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    command = [sys.executable, "-m", "flows.quickstart", *(word for each in SMALL for word in ("--set", each))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "held-out prompts" in done.stdout
    (folder,) = re.findall(r"serve (\S+) --host", done.stdout)
    assert (Path(folder) / "model.safetensors").is_file()


@pytest.mark.slow
def test_make_store(tmp_path, monkeypatch):
    monkeypatch.setattr(make_store, "STORES", tmp_path)
    make_store.main()
    (release,) = tmp_path.iterdir()
    assert list(release.glob("store/evaluate_policy/*/manifest.json"))
