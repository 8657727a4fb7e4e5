"""
The web console at ``/console/``: pages for operators, drawn by the server.

Everything that it shows and does is an operation of the server (`harn.operations`), run with the role of the key that
its user signed in with, beside `harn.console.traffic`, which counts lifecycle events. A request goes from `Console`
(``place``) to a route in ``app``, past ``sign_in`` and ``forms``, to the module of its page, and to ``rendering``.
"""
