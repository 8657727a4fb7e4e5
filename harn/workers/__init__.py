"""
Several servers on one machine, as the processes of one command.

`supervisor` starts, restarts and ends them, as `restarts` decides; `process` is one of them as the supervisor sees it;
`assignment` is what a worker is given, and `link` its connection to the supervisor. `directory` is the state directory
that commands look at, which has one of each worker in it.
"""
