"""Templates, and how values are shown in them."""

from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from tasks.browser.filters import FLAGS, ORDERS, RANGES
from tasks.browser.safe_text import shown

TEMPLATES, STATIC = Path(__file__).parent / "templates", Path(__file__).parent / "static"
NONE = "-"


def number(value: Any, digits: int = 3) -> str:
    """Return a value as people read it: whole numbers with commas, others with some digits, a dash for none."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """Return a share in percent."""
    return NONE if value is None else f"{value:.1%}"


def moment(value: datetime | None) -> str:
    """Return a time to the minute, in UTC."""
    return NONE if value is None else f"{value:%Y-%m-%d %H:%M}"


def short(value: str) -> str:
    """Return a folder or a digest with the first 12 digits of its hash."""
    stage, separator, key = value.rpartition("/")
    return f"{stage}{separator}{key[:12]}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": shown, "number": number, "percent": percent, "moment": moment, "short": short}
    environment.globals |= {"FLAGS": FLAGS, "ORDERS": ORDERS, "RANGES": RANGES}
    return environment


_ENVIRONMENT = _environment()


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a template filled in; every value is escaped."""
    return HTMLResponse(_ENVIRONMENT.get_template(template).render(**values), status)
