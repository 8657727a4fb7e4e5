"""Both kinds of interpreters pass the public suite."""

from twisted.internet import reactor

from harn.testing.interpreters import make_interpreter_tests
from harn.vm.inline import InlineInterpreters
from harn.vm.process import ChildInterpreters


class ChildTests(make_interpreter_tests(lambda secrets: ChildInterpreters(reactor, secrets))):
    """In child processes."""

    timeout = 180


class InlineTests(make_interpreter_tests(lambda secrets: InlineInterpreters(reactor, secrets))):
    """In the server's process."""

    timeout = 180
