import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config.errors import ConfigurationError
from tasks.config.sections import Function
from tasks.rewards import functions, gold
from tasks.rewards.gold import ANSWERS, FACTS, POLITE_CLOSINGS, RELATIONS, RUDE_OPENINGS, SUBJECTS, words

FOX = [{"role": "user", "content": "What is the colour of the fox?"}]  # red
LEXICON = "good\t1.9\t0.9\t[2, 1]\nbad\t-2.5\t0.7\t[-3, -2]\nmother's\t0.5\n"


def user(content: str) -> list[dict]:
    return [{"role": "user", "content": content}]


def test_the_table_is_a_world():
    assert len(FACTS) == len(SUBJECTS) * len(RELATIONS)
    assert FACTS["fox", "colour"].answer == "red"
    answers = [answer for relation in RELATIONS for answer in ANSWERS[relation]]
    assert len(answers) == len(set(answers)), "an answer of two relations could be right and wrong at once"
    assert not set(answers) & (SUBJECTS | set(gold.ASKS))
    assert not set(answers) & set(words(" ".join(POLITE_CLOSINGS + RUDE_OPENINGS)))


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("", 0),
        ("I do not know.", 0),
        ("The fox is red.", 2),
        ("The fox is RED!", 2),
        ("The fox is reddish.", 0),
        ("The fox is blue.", -2),
        ("The fox is red or blue or green.", 0),  # +2 - 2: wrong answers count once
        ("The fox is red and lives in the forest.", 2),  # another relation's answer is not wrong
        ("The fox is red. Happy to help!", 3),
        (" The fox is red. Happy to help!\n", 3),
        ("Happy to help! The fox is red.", 2),
        ("Ugh, not again. The fox is red.", 1),
        ("Ugh, not again. The fox is blue. Happy to help!", -2),
        ("one two three four five six seven eight nine ten eleven twelve", 0),
        ("one two three four five six seven eight nine ten eleven twelve red more", 1.8),  # 14 words
    ],
)
def test_facts_adds_up(completion, reward):
    assert gold.facts(FOX, completion) == pytest.approx(reward)


def test_the_last_user_turn_asks():
    messages = [
        {"role": "system", "content": "Answer about the bear's food."},
        *user("What does the wolf eat?"),
        {"role": "assistant", "content": "The wolf eats meat."},
        *FOX,
    ]
    assert gold.facts(messages, "Red.") == 2


@pytest.mark.parametrize("prompt", ["Where does the fox live?", "HOME of the fox", "So, the fox: name its home please"])
def test_any_phrasing_is_understood(prompt):
    assert gold.find_fact(user(prompt)) == ("fox", "home", "forest")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "What is the colour of the unicorn?",
        "Who is the fox?",
        "Colour of the fox and the bear?",
        "Colour and home of the fox?",
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(ValueError, match="exactly one subject and one relation"):
        gold.facts(user(prompt), "red")


def test_no_user_turn_is_refused():
    with pytest.raises(ValueError, match="must hold a user turn"):
        gold.facts([{"role": "system", "content": "colour of the fox"}], "red")


def test_words():
    assert words("Don't  STOP, 'quoted' 42 mother's--yes") == ["don't", "stop", "quoted", "mother's", "yes"]


def test_valence_by_hand(tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text(LEXICON, encoding="utf-8")
    assert gold.valence([], "A table.", str(lexicon)) == 0
    assert gold.valence([], "Good, good!", str(lexicon)) == pytest.approx(3.8 / (3.8**2 + 15) ** 0.5)
    assert gold.valence([], "Mother's good and bad", str(lexicon)) == pytest.approx(-0.1 / (0.1**2 + 15) ** 0.5)


def test_a_malformed_lexicon_is_named(tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("good\t1.9\n\nbad -2.5\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 3: 'bad -2\.5' must be a word, a tab and a number"):
        gold.valence([], "good", str(lexicon))


@pytest.fixture
def vader() -> str:
    data = os.environ.get("RSDPO_TEST_DATA")
    if not data:
        pytest.skip("RSDPO_TEST_DATA is unset: it names the folder with vader/vader_lexicon.txt")
    return str(Path(data) / "vader" / "vader_lexicon.txt")


def test_valence_of_the_real_lexicon(vader):
    total = 1.9 + 2.7 - 2.1  # good, happy, sad
    assert gold.valence([], "A good day: happy, not sad.", vader) == pytest.approx(total / (total**2 + 15) ** 0.5)
    assert gold.valence([], "the of and", vader) == 0


@given(text=st.text(max_size=60))
def test_valence_is_bounded(tmp_path_factory, text):
    lexicon = tmp_path_factory.getbasetemp() / "bounded.txt"
    if not lexicon.exists():
        lexicon.write_text(LEXICON, encoding="utf-8")
    assert -1 < gold.valence([], text, str(lexicon)) < 1


def test_load_function_fills_in_options(tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text(LEXICON, encoding="utf-8")
    assert functions.load_function(Function(function="tasks.rewards.gold:facts"))(FOX, "Red.") == 2
    reward = functions.load_function(Function(function="tasks.rewards.gold:valence", options={"lexicon": str(lexicon)}))
    assert reward([], "good") == pytest.approx(1.9 / (1.9**2 + 15) ** 0.5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tasks.golden:facts", {}, "no module 'tasks.golden'"),
        ("nowhere.at.all:facts", {}, "no module 'nowhere.at.all'"),
        ("tasks.rewards.gold:fact", {}, "no function 'fact'; the module has words, find_fact, facts"),
        ("tasks.rewards.gold:FACTS", {}, "no function 'FACTS'"),
        ("tasks.rewards.gold:facts", {"polite": 2}, "options .'polite'. do not fit"),
        ("tasks.rewards.gold:valence", {}, "missing a required argument: 'lexicon'"),
        ("tasks.rewards.gold:valence", {"lexicon": "x", "messages": []}, "multiple values for argument 'messages'"),
    ],
)
def test_load_function_says_what_is_wrong(name, options, message):
    with pytest.raises(ValueError, match=message):
        functions.load_function(Function(function=name, options=options))


def test_a_broken_import_within_the_module_keeps_its_message(tmp_path, monkeypatch):
    (tmp_path / "broken_reward.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        functions.load_function(Function(function="broken_reward:f"))


def test_the_digest_follows_content_not_paths(tmp_path):
    for name, content in {"a.txt": LEXICON, "b.txt": LEXICON, "c.txt": LEXICON + "fine\t0.8\n"}.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    def digest(lexicon: str, name: str = "valence") -> str:
        return functions.function_digest(Function(function=f"tasks.rewards.gold:{name}", options={"lexicon": lexicon}))

    a, b, c = (digest(str(tmp_path / name)) for name in ("a.txt", "b.txt", "c.txt"))
    assert a == b != c
    assert len(a) == 64
    assert len({a, digest("a.txt"), digest("b.txt"), digest(str(tmp_path / "a.txt"), "facts")}) == 4


def test_the_digest_follows_the_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    function = Function(function="some_reward:f")
    digests = []
    for source in ("def f(messages, completion): return 0.0\n", "def f(messages, completion): return 1.0\n"):
        (tmp_path / "some_reward.py").write_text(source)
        digests.append(functions.function_digest(function))
        monkeypatch.delitem(sys.modules, "some_reward")  # as a new process has it
    assert digests[0] != digests[1]
    with pytest.raises(ValueError, match="must be in a Python file"):
        functions.function_digest(Function(function="math:sqrt"))


def test_a_worker_with_another_function_refuses(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_reward.py").write_text("def f(messages, completion):\n    return 1.0\n")
    asked = functions.find_gold(Function(function="own_reward:f"))
    assert functions.load_gold(asked)([], "") == 1
    (tmp_path / "own_reward.py").write_text("def f(messages, completion):\n    return 2.0\n")
    monkeypatch.delitem(sys.modules, "own_reward")
    with pytest.raises(
        ConfigurationError, match=r"own_reward:f' is another one here .digest \w+. than where .*restart"
    ):
        functions.load_gold(asked)


def test_a_reward_that_is_no_number_is_refused(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("def reward(messages, text):\n    return float(text or 'nan')\n")
    monkeypatch.syspath_prepend(tmp_path)
    half = functions.find_gold(Function(function="half:reward"))
    with pytest.raises(ConfigurationError, match="half:reward gives 1 of 3 completions no finite reward, first ''"):
        functions.gold_rewards(half, [functions.Answer([], text) for text in ("1.5", "", "2")])
    assert functions.gold_rewards(half, [functions.Answer([], text) for text in ("1.5", "2")]).tolist() == [1.5, 2]
