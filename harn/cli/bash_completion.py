"""
Completion in bash of words that it takes apart itself: at ``@``, as in ``gh@v2`` and ``@FILE``, and at ``:`` and ``=``.

The script passes the line on as it was typed, and replaces only what stands after the last of these characters.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

SCRIPT = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local response completion type value

    response=$(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete $1)

    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"

        if [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("$value")
            if [[ $value == */ ]]; then compopt -o nospace; fi
        fi
    done
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


class BashCompletion(BashComplete):
    """The completion of bash, with the script above."""

    source_template = SCRIPT

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._kept = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words that are complete, and the one that is not."""
        line = os.environ.get("COMP_LINE", "")
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        self._kept = kept_of(incomplete, line, os.environ.get("COMP_WORDBREAKS", ""))
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a value without what bash keeps of the word."""
        return f"{item.type},{str(item.value).removeprefix(self._kept)}"


def kept_of(word: str, line: str, breaks: str) -> str:
    """
    Return the beginning of a word that bash keeps, to the last of its ``breaks``; nothing where the word is quoted.

    :param line: that ends with the word, as it was typed.
    """
    if line.split(" ")[-1][:1] in ("'", '"'):
        return ""
    last = max((word.rfind(each) for each in breaks if not each.isspace()), default=-1)
    # What begins with @ is completed with it, as it may be the name of a host.
    kept = word[:last] if word[last : last + 1] == "@" else word[: last + 1]
    return kept.partition("=")[2] if kept.startswith("-") else kept  # values are without the option


def register() -> None:
    """Use this completion for bash."""
    add_completion_class(BashCompletion)
