"""The doors that the tests of identity go through."""

from tests.doors.conftest import home, invoke  # noqa: F401
from tests.doors.server.conftest import serve  # noqa: F401
