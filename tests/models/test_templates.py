"""Templates that ask for the date: always the same day, whatever the format, wherever they are rendered."""

from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from tasks.models.templates import pin_date, pinned_date

DAY = date(2024, 7, 26)
HELLO = [{"role": "user", "content": "Hello"}]


def rendered(template: str) -> str:
    """Render as transformers, TRL and vLLM do."""
    texts, _ = render_jinja_template([HELLO], chat_template=template, add_generation_prompt=True)
    return texts[0]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Today is {{ strftime_now('%d %b %Y') }}.", "Today is 26 Jul 2024."),
        ("{%- set day = strftime_now('%B %-d, %Y') -%}{{ day }}|{{ messages[0].content }}", "July 26, 2024|Hello"),
        ("{% if strftime_now is defined %}{{ strftime_now('%A %H:%M 100%%') }}{% endif %}", "Friday 00:00 100%"),
        ("{% macro head() %}{{ strftime_now('%F') }}{% endmacro %}{{ head() }}", "2024-07-26"),
        ("{% set form = '%y' %}{{ strftime_now(form ~ '/%j') }}", "24/208"),
        ("\n {{ strftime_now('%m') }}\n", "\n 07"),
    ],
)
def test_by_hand(template, text):
    assert rendered(pin_date(template, DAY)) == text


def test_no_date_no_change():
    template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    assert pin_date(template, DAY) == template


def test_a_fixed_template_stays_as_it_is():
    once = pin_date("{{ strftime_now('%Y') }}", DAY)
    assert pin_date(once, date(2030, 1, 1)) == once
    assert pinned_date(once) == "2024-07-26"
    assert pinned_date("{{ strftime_now('%Y') }}") is None
    assert pinned_date("{{ messages }}") is None


def test_a_format_given_by_name_and_what_is_no_directive():
    assert rendered(pin_date("{{ strftime_now(format='%d/%m') }}", DAY)) == "26/07"
    assert rendered(pin_date("{{ strftime_now('50%') }}|{{ strftime_now('') }}", DAY)) == "50%|"
    assert rendered(pin_date("{{ strftime_now('%s') }}", DAY)) == "1721952000"


PIECES = st.one_of(
    st.builds(
        "%{}{}".format, st.sampled_from(["", "-", "_", "0", "^"]), st.sampled_from("aAbBdeHIjmMpSuUVwWyYFTDRcxXZz")
    ),
    st.sampled_from(["%%", "d", "Y", " ", "/", ", ", "100"]),
)


@settings(max_examples=60)
@given(st.lists(PIECES, max_size=8).map("".join), st.dates(date(1990, 1, 1), date(2060, 1, 1)))
def test_any_format_is_what_strftime_says(form, day):
    expected = datetime(day.year, day.month, day.day).strftime(form)
    assert rendered(pin_date("{{ strftime_now('" + form + "') }}", day)) == expected
