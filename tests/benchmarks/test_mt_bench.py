"""MT-Bench: its real files, its stored judgments, and means by hand."""

import json

import numpy as np
import pytest
from judge_server import asked_text, judging

from tasks.benchmarks.figures import Resampling
from tasks.benchmarks.mt_bench import answer_questions, grading_question, judge_text, outcome, policy_figures, rate
from tasks.benchmarks.mt_bench_files import JudgePrompt, MtBench, MtQuestion, read_mt_bench
from tasks.config.benchmarks import MtBenchConfig
from tasks.config.errors import ConfigurationError
from tasks.judges.judge import Judge
from tasks.store.folders import Store

BY = Resampling(200, 0)
JUDGED = "model_judgment_gpt-3.5_single_turn1.jsonl"


@pytest.fixture(scope="module")
def files(test_data) -> dict[str, str]:
    folder = test_data / "mt_bench"
    names = {"questions": "question", "prompts": "judge_prompts", "references": "reference_answer_gpt-4"}
    return {field: str(folder / f"{name}.jsonl") for field, name in names.items()}


@pytest.fixture(scope="module")
def bench(files, test_data) -> MtBench:
    llama = str(test_data / "mt_bench/model_answer_llama-2-chat7b.jsonl")
    return read_mt_bench(MtBenchConfig(**files, answers={"llama": llama}))


def judgments(test_data):
    return [json.loads(line) for line in (test_data / "mt_bench" / JUDGED).read_text().splitlines()]


def question(bench, id_):
    return next(each for each in bench.questions if each.id == str(id_))


def test_the_files_are_read(bench):
    assert len(bench.questions) == len(bench.answers["llama"]) == 80
    referenced = {each.category for each in bench.questions if each.references}
    assert referenced == {"math", "reasoning", "coding"}
    assert sum(each.references is not None for each in bench.questions) == 30


def test_stored_judgments_give_their_stored_scores(bench, test_data):
    """200 judgments of four models: each score is the stored one, and so is each model's mean of the turn."""
    rows = judgments(test_data)
    read = [grading_question(bench, bench.questions[0], ("", ""), 1, "").read(row["judgment"]) for row in rows]
    assert read == [row["score"] for row in rows]
    assert len(rows) == 200
    assert np.mean(read) == 7.79
    stored = {row["model"] for row in rows}
    for model in stored:
        own = {str(row["question_id"]): row["score"] for row in rows if row["model"] == model}
        ratings = np.array([[own.get(each.id, np.nan), np.nan] for each in bench.questions])
        figures = {each.figure: each for each in policy_figures(bench, model, ratings, BY)}
        assert figures["turn 1"].value == pytest.approx(sum(own.values()) / 50)
        assert figures["turn 1"].rows == figures["both turns"].rows == 50
        assert figures["turn 2"].rows == figures["math"].rows == 0
        writing = [own[str(id_)] for id_ in range(81, 91)]
        assert figures["writing"].value == pytest.approx(sum(writing) / 10)


def test_stored_prompts_are_made_again(bench, test_data):
    """The stored judge read a translated instruction; with it in place of single-v1's, the prompts are the stored."""
    own = bench.prompts["single-v1"].template
    frame = own[own.index("[Question]") :]
    for row in judgments(test_data):
        asked, stored = question(bench, row["question_id"]), row["user_prompt"]
        head = stored[: stored.index("[Question]")]
        answer = stored.partition("[The Start of Assistant's Answer]\n")[2]
        answer = answer.removesuffix("\n[The End of Assistant's Answer]")
        prompt = JudgePrompt("", head.replace("{", "{{").replace("}", "}}") + frame)
        assert judge_text(prompt, asked, (answer, ""), 1) == stored


def test_a_question_with_a_reference_by_hand(bench):
    asked = question(bench, 101)  # reasoning
    one, two = (grading_question(bench, asked, ("first", "second"), turn, "it").messages for turn in (1, 2))
    assert one[0] == {"role": "system", "content": "You are a helpful assistant."}
    assert one[1]["content"].endswith(
        f"[Question]\n{asked.turns[0]}\n\n[The Start of Reference Answer]\n{asked.references[0]}\n"
        "[The End of Reference Answer]\n\n[The Start of Assistant's Answer]\nfirst\n[The End of Assistant's Answer]"
    )
    assert two[1]["content"].endswith(
        f"### User:\n{asked.turns[0]}\n\n### Assistant A:\nfirst\n\n### User:\n{asked.turns[1]}\n\n"
        "### Assistant A:\nsecond\n\n<|The End of Assistant A's Conversation with User|>"
    )
    assert f"### Reference answer:\n{asked.references[1]}" in two[1]["content"]
    plain = question(bench, 81)  # writing
    assert plain.references is None
    assert "Reference" not in grading_question(bench, plain, ("a", "b"), 2, "it").messages[1]["content"]


def test_the_second_answer_follows_the_first_at_the_category_s_temperature(bench):
    heard = []

    def answer(conversations, temperatures):
        heard.append((conversations, temperatures))
        return [f"answer {len(heard)} to {messages[-1]['content'][:9]}" for messages in conversations]

    asked = [question(bench, 81), question(bench, 111), question(bench, 151)]
    said = answer_questions(asked, answer)
    (_, first), (conversations, second) = heard
    assert first == second == [0.7, 0.0, 0.1]  # writing, math, humanities
    assert [turn["role"] for turn in conversations[0]] == ["user", "assistant", "user"]
    assert conversations[0][1]["content"] == said["81"][0] == "answer 1 to Compose a"
    assert said["81"][1] == "answer 2 to Rewrite y"


SMALL = [MtQuestion(str(n), category, ("q", "r"), None) for n, category in enumerate(["writing", "writing", "stem"])]


def test_means_and_intervals_by_hand():
    ratings = np.array([[2.0, 4.0], [6.0, np.nan], [10.0, 10.0]])
    found = {each.figure: each for each in policy_figures(MtBench(SMALL, {}, {}), "p", ratings, BY)}
    assert {name: each.value for name, each in found.items()} == {
        "both turns": 6.4,  # (2 + 4 + 6 + 10 + 10) / 5
        "turn 1": 6.0,
        "turn 2": 7.0,
        "writing": 4.0,  # (2 + 4 + 6) / 3
        "stem": 10.0,
    }
    assert (found["stem"].low, found["stem"].high) == (10, 10)
    assert found["both turns"].low >= 3  # of the first question alone
    assert found["turn 2"].rows == 2


def test_a_verdict_is_asked_for_twice_and_then_left_out(bench, tmp_path):
    few = MtBench(bench.questions[:2], bench.prompts, {})
    answers = {each.id: (f"one {each.id}", f"two {each.id}") for each in few.questions}

    def behaviour(request, number):
        return "Rating: [[11]]" if "two 82" in asked_text(request) else "Rating: [[8]]"

    with judging(behaviour) as server:
        judge = Judge(server.config(max_unreadable=0.5), Store(str(tmp_path / "store")))
        ratings = rate(judge, few, answers, "p", lambda verdict: None)
        assert len(server.requests) == 5
        rate(judge, few, answers, "q", lambda verdict: None)
        assert len(server.requests) == 5
    assert np.array_equal(ratings, [[8, 8], [8, np.nan]], equal_nan=True)
    made = outcome(few, {"p": answers}, {"p": ratings}, BY)
    assert made.notes == ["p: 1 verdicts were unreadable and left out"]
    assert [each.measure for each in made.answers[:2]] == ["mt_bench turn 1", "mt_bench turn 2"]


@pytest.mark.parametrize(
    ("field", "rows", "message"),
    [
        ("questions", [{"question_id": 1, "category": "stem", "turns": ["a"]}], "turns must be a list of two texts"),
        ("questions", [{"question_id": 1, "turns": ["a", "b"]}], "has no category"),
        ("questions", [{"question_id": 1, "category": "stem", "turns": ["a", "b"]}] * 2, "question 1 is there twice"),
        ("questions", [{"question_id": 1, "category": "math", "turns": ["a", "b"]}], "mt_bench.references has none"),
        ("prompts", [{"name": "single-v1", "prompt_template": "{question} {answer}"}], "lacks single-math-v1"),
        ("prompts", [{"name": "single-v1", "prompt_template": "{question}"}], "and needs answer, question"),
        ("prompts", [{"name": "single-v1", "prompt_template": "{question"}], "write '{{' and '}}' for braces"),
        ("prompts", [{"name": "single-v1", "prompt_template": "{question} {answer}"}] * 2, "single-v1 is there twice"),
        ("references", [{"question_id": 1, "choices": [{"turns": ["a", "b"]}]}] * 2, "question 1 is there twice"),
        ("references", [{"question_id": 101, "choices": []}], "choices must be a list"),
    ],
)
def test_what_a_file_lacks_is_refused(files, tmp_path, field, rows, message):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigurationError, match=message):
        read_mt_bench(MtBenchConfig(**files | {field: str(path)}))


def test_stored_answers_must_be_whole(files, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question_id": 81, "choices": [{"turns": ["a", "b"]}]}) + "\n")
    with pytest.raises(ConfigurationError, match=r"answers\.x has no answer to 79 of 80 questions, such as 82"):
        read_mt_bench(MtBenchConfig(**files, answers={"x": str(path)}))
