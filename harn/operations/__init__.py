"""
Operations on a server, declared once: `operation`, and everything that is made from a declaration.

Nothing here, and no module that declares operations, imports Twisted when it is loaded: the command line reads the same
declarations, and must start fast. A service is named there for the type checker alone.
"""
