"""The rounds as one curve."""

from collections.abc import Sequence

from tasks.report.blocks import Plot, Section, Table, Text
from tasks.report.page import render
from tasks.report.plots import lines
from tasks.rounds.outcome import Round

HEAD = ("round", "reward", "sft", "gain", "win rate over sft", "KL (nats)", "pairs", "tokens a completion")


def rounds_table(rounds: Sequence[Round]) -> Table:
    """Return a row a round."""
    rows = [
        (
            str(each.number),
            f"{each.reward:.3f}",
            f"{each.before:.3f}",
            f"{each.gain:+.3f}",
            "-" if each.win_rate is None else f"{each.win_rate:.3f}",
            f"{each.kl:.2f}",
            f"{each.pairs:,}",
            f"{each.length:.1f}",
        )
        for each in rounds
    ]
    return Table(HEAD, rows)


def every_reward(rounds: Sequence[Round]) -> list[Plot]:
    """Return the gains of all rewards against KL, where there are several: one that falls while another rises is seen.

    A reward that pairs are not selected by, and that falls, says that the rounds over-optimise (arXiv:2210.10760).
    """
    names = sorted(set.intersection(*(set(each.gains) for each in rounds)))
    if len(names) < 2:
        return []
    kl = [0.0, *(each.kl for each in rounds)]
    series = {name.replace("_", " "): (kl, [0.0, *(each.gains[name] for each in rounds)]) for name in names}
    caption = "Gain of each reward, round by round"
    return [lines(series, "KL from sft (nats a completion)", "gain (standard deviations)", caption)]


def rounds_page(rounds: Sequence[Round], store: str, conclusion: str) -> bytes:
    """Return the page of a loop of rounds as HTML."""
    kl, gains = [0.0, *(each.kl for each in rounds)], [0.0, *(each.gain for each in rounds)]
    curve = lines({"gain": (kl, gains)}, "KL from sft (nats a completion)", "gain in reward", "Round by round")
    note = Text(
        "Each round's policy is compared with the SFT policy on the same held-out prompts. Rounds draw with seeds of "
        "their own, so gains over the SFT policy are compared, not rewards."
    )
    section = Section("What did each round gain?", [note, curve, *every_reward(rounds), rounds_table(rounds)])
    return render("RS-DPO, rounds", "", store, conclusion, [section])
