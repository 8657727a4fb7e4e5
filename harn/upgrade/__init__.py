"""
The upgrade in place: a running server hands over to a new program, which takes its place.

`upgrade.Upgrade` runs it on the old program's side, with `upgrade.NewProcess`; `old_process.OldProcess` is the new
program's side; `program` says how a program is started, what it inherits, and what the two send each other.
What both need of the server that they are part of is in `interfaces`.
"""
