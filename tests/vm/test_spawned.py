"""`multiprocessing` in handlers, by each of its start methods."""

from pathlib import Path
from typing import Any

from twisted.internet import reactor

from harn.errors import HandlerTimedOut
from harn.testing.calls import make_call
from harn.testing.interpreters import InterpreterCase
from harn.vm.calls import run_call
from harn.vm.process import ChildInterpreters

HANDLERS = """
    import concurrent.futures, multiprocessing, os, time
    from shop.prices import double

    def quadruple(number): return double(double(number))
    def put(queue): queue.put(quadruple(4))

    def process(event, context):
        methods = multiprocessing.get_context(event.provider_payload["action"])
        queue = methods.Queue()
        started = methods.Process(target=put, args=(queue,))
        started.start()
        found = queue.get(timeout=20)
        started.join()
        return [found, started.exitcode]
    def pools(event):
        methods = multiprocessing.get_context(event.provider_payload["action"])
        with methods.Pool(1) as pool:
            one = pool.map(quadruple, [1, 2])
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=methods) as executor:
            return [one, list(executor.map(quadruple, [3]))]
    def terminates(event):
        methods = multiprocessing.get_context(event.provider_payload["action"])
        started = methods.Process(target=time.sleep, args=(60,))
        started.start()
        started.terminate()
        started.join(20)
        return started.exitcode
    shared = []
    def waits_for_a_pool(event):
        shared.append(multiprocessing.get_context("fork").Pool(1))
        while True: time.sleep(0.01)
    def asks_the_pool(event):
        return shared[0].apply(quadruple, (1,))
"""


class MultiprocessingTests(InterpreterCase):
    """Processes that run a handler's own functions."""

    timeout = 180
    factory = staticmethod(lambda secrets: ChildInterpreters(reactor, secrets))

    def packages(self) -> Any:
        """Return a bundle whose modules are no longer on disk."""
        files = {
            "handlers.py": HANDLERS,
            "shop/__init__.py": "",
            "shop/prices.py": "def double(number): return 2 * number\n",
        }
        bundle = self.bundle(files, ["process"])
        for module in bundle.modules.values():
            Path(module.path).write_text("raise SystemExit('read from disk')\n")
        return bundle

    async def test_start_methods(self) -> None:
        """Each start method finds the interpreter's own modules, and its processes can be terminated."""
        interpreter = await self.interpreters.create(self.packages())
        for method in ("fork", "spawn", "forkserver"):
            body = b'{"action": "%s"}' % method.encode()
            found = [await self.result(interpreter, each, body=body) for each in ("process", "pools", "terminates")]
            self.assertEqual((method, found), (method, [[16, 0], [[4, 8], [12]], -15]))

    async def test_pools_outlive_calls(self) -> None:
        """A pool that a call whose time is up has made serves later calls."""
        interpreter = await self.interpreters.create(self.packages())
        await self.failure(run_call(interpreter, make_call("waits_for_a_pool", timeout=2.0)), HandlerTimedOut)
        self.assertEqual(await self.result(interpreter, "asks_the_pool"), 4)
