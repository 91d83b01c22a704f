"""Templates that ask for the date: always the same day, whatever the format, wherever they are rendered."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from tasks.templates import on_a_fixed_day

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
    assert rendered(on_a_fixed_day(template, DAY)) == text


def test_no_date_no_change():
    template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    assert on_a_fixed_day(template, DAY) == template


@given(
    st.text(st.sampled_from("dmYyHMSjaAbBpUWuGVFTDR%- /:,"), max_size=12), st.dates(date(1990, 1, 1), date(2060, 1, 1))
)
def test_any_format_is_what_strftime_says(form, day):
    form = form.replace("%-", "-%").replace("%", "%%") if form.endswith("%") else form
    known = set("dmYyHMSjaAbBpUWuGVFTDR%")
    places = [i for i, letter in enumerate(form) if letter == "%"]
    if any(i + 1 >= len(form) or form[i + 1] not in known for i in places) or "%%" in form:
        return
    assert rendered(on_a_fixed_day("{{ strftime_now('" + form + "') }}", day)) == datetime(
        day.year, day.month, day.day
    ).strftime(form)
