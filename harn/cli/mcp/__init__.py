"""
``harn mcp``: the operations of a server as tools of the Model Context Protocol, for agents.

The SDK is an optional dependency, so it is imported inside of functions: every module here can be loaded without it.
"""
