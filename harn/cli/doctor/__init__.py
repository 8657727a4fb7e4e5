"""The command ``harn doctor``: checks of a state directory, a manifest and a machine, each in one module by subject."""
