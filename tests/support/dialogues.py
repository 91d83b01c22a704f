"""Messages by hand, and what a row with them is read as."""

import pytest

from tasks.data.conversations import BadRow
from tasks.data.records import parse_record


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def system(content):
    return {"role": "system", "content": content}


def reason(values, role):
    with pytest.raises(BadRow) as caught:
        parse_record(values, role)
    return caught.value.reason


def prompt_of(values, role="prompts"):
    return parse_record(values, role).messages
