"""The words that our prose avoids and how docstrings begin: rules, and where a file breaks them."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

PHRASES: dict[str, str] = {
    # pattern, with any white space for a space: what to write
    r"nobody(?:'s)?|somebody(?:'s)?|everybody(?:'s)?": "name who or what: the caller, the process, no dispatcher",
    r"(?:becomes?|became|has become) of": "name the thing: the outcome of, the result of, what happens to",
    r"told(?! apart)": "notified, passed, given, logged",
    r"tells": "notifies, reports, returns, means",
    r"hears?|heard": "receives, is called with, is notified",
    r"forg[eo]t\w*": "remove, discard, drop, delete",
    r"lets? (?:\w+ ){0,3}go(?: of)?|letting go": "release, close, drop, free",
    r"(?<!there\s)(?:is|are|was|were|be) no (?!longer|more|less|fewer|greater|later|earlier)\w+": "is not a, must be a",
    r"(?<!there\s)(?:is|are|was|were) (?-i:none)(?! of the)": "does not exist, is not a, matches nothing",
    r"ours": "harn's own, our process, this server's",
    r"ha(?:s|ve) to say": "name what it reports or returns",
    r"knows": "has, holds, stores, contains, accepts",
    r"wish(?:es|ed)?": "options, request, what was asked for",
    r"judg\w+": "check, evaluate, classify, decide",
    r"(?:of|as of) now": "current",
    r"of what (?:it|they|is|are|has|have|had|one)": "name the thing",
    r"what (?:it|they) (?:has|have|had|holds?|held|is|are|was|were|does|do)": "name the thing: its entries, its state",
    r"(?:it|this|that) is all|all there is": "say it directly, or leave it out",
    r"(?:is|are|was|were) over(?=[.,;:]|$| and)": "has ended, has finished",
    r"(?:is|are) away": "is unavailable, cannot be reached",
    r"anew": "again, from the start",
    r"(?:takes?|taken|taking|took) back": "redrive, undo, return",
    r"for nothing": "unnecessarily, without effect",
    r"(?:makes?|made|making) (?:\w+ )?up(?= |[.,;:]|$)": "synthetic, generate",
    r"at hand": "available, in memory",
    r"whosever|whose ever": "of any",
    r"(?:may|might|can) yet|as yet": "may still, so far",
    r"to be had": "available",
    r"bur(?:y|ies|ied|ial)": "dead-letter, give up",
    r"stead": "instead of it, replaces",
    r"thrown away|throws? away|throwing away": "discard, drop",
    r"turn(?:s|ed|ing)? away": "refuse, reject",
    r"(?:goes|gone|going) by": "depends on, is decided by; pass",
    r"goes and comes|comes and goes|comes? and goes?": "appears and disappears",
    r"mend(?:s|ed|ing)?": "fix, repair, correct",
    r"heirs?": "new process, successor",
    r"endless(?:ly)?": "unbounded, too long",
    r"blam(?:e|ed|es|ing)|innocent|guilty|convict\w*|acquit\w*": "name the cause: the call that blocked",
    r"learns?|learnt": "receives, reads, detects",
    r"believ\w+|cares?|dares?|pleases?|regrets?": "say what the code does",
    r"one of a kind": "unique",
    r"nothing but": "only",
    r"see(?:s|n)? to": "ensure",
    r"good for": "valid for, used for",
    r"(?:has|have|had) a hand in": "influence, write",
    r"out of sight": "lost, untracked",
    r"in its place stands": "is replaced by",
    r"(?:a|the) word (?:of|from|for)": "message",
    r"of before": "older, earlier, from before",
    r"(?:the|an?) (?:one|version|program|server|reload|adopt) before(?=[.,;:)]|$| (?:is|was|has|takes|gave|left))": (
        "the previous one"
    ),
    r"as (?:[\w.·]+ ){1,4}(?:has|have|had) (?:it|them)": "in the form of, as in, as it writes it",
    r"as (?:it|they) reads? now": "their current content",
    r"comes? to rest": "stop changing",
    r"(?:came|comes?) of": "the outcome of, the result of",
    r"fare[sd]?": "the outcome of, how many fail",
    r"(?:is|the) news": "changed, is reported",
    r"spares|spared": "leaves out, saves, limits",
    r"owe[sd]?": "is due",
    r"made-up": "synthetic, forged",
    r"how far (?:\w+ ){1,3}(?:has|have) come": "its progress",
    r"(?<!and\s)(?<!are\s)no more(?=[.,;:)]|$)": "no longer, stop",
    r"for want of": "without, for lack of",
    r"(?:can(?:not)?) be meant": "is not valid",
    r"as ever": "as usual, as always",
    r"what serve[sd]": "the live generation, the last live generation",
    r"in hand": "unfinished, in memory, in progress",
    r"for good": "permanently, with all attempts",
    r"what is left of": "the rest of",
    r"which is what|of its own accord|be it": "that, automatically, whether",
    # What commands say of a reload or a job is stated by the contract of the command line.
    r"go(?:es)? on(?! serving| in the server|; ·+ shows)": "continue, keep, still run, resume",
}
"""Regular expressions (white space stands for any; whole words, any case) and what to write instead."""

VERBS = frozenset(
    """
    abort accept acquire activate add adopt allocate allow answer append apply arm assert attach authenticate back
    begin bind block buffer build cache call cancel catch change check choose claim classify clear close collect
    combine commit compact compare compile complete compress compute configure confirm connect consume continue
    convert copy count create cut dead-letter decide declare decode decompress decorate define delete deliver derive
    describe detect digest disable discard disconnect dispatch drain draw drive drop edit emit empty enable encode
    end ensure enter escape evaluate examine exchange execute exit expect expire export extend extract fail fetch
    fill find finish fire fit flush follow forbid format forward freeze gather generate group guard guess handle
    hash help hide hold identify ignore import increment inform insert install instrument interrupt invalidate join
    keep kill lease leave limit link list listen load locate lock log look lower make map mark mask match measure
    merge migrate mirror mount move normalize notify observe open order override pack parse pass pause
    percent-decode percent-encode perform pick ping plan point poll pop post prefetch prepare prevent print process
    prune publish push put query queue quiesce quote raise rank read reap reassign receive recompute reconcile
    record recover redact redirect redrive refill refuse register reject release reload remove rename render renew
    reopen repeat replace replay report request reserve reset resolve respond restart restore resume retire retry
    return revert revive revoke rotate route run sample save scan schedule search see select send serialize serve
    set settle shorten show shut shutdown sign simulate skip sort split stage start step stop store stream strip
    submit subscribe summarize suspend swap switch synchronize terminate test time touch track transfer translate
    treat trigger trim truncate try unblock undo uninstall unlink unlock unregister update upgrade use validate
    verify wait wake watch withdraw work wrap write yield zero
    """.split()  # noqa: SIM905 - a hundred words read better so
)
"""How the docstring of a function begins, unless with "Called when": plain imperative verbs."""

RIDDLES = frozenset(("what", "how", "who", "whom", "whose", "why", "of", "too", "it", "they"))
"""How no docstring begins."""

INSTEAD_OF: dict[str, str] = {
    "give": "Return",
    "tell": "Return whether",
    "say": "Return, Describe, Log or Raise",
    "name": "Return",
    "let": "a verb for what the function does",
    "note": "Record",
    "take": "Handle, Record, Acquire or Remove",
    "forget": "Remove or Discard",
    "know": "Return whether",
    "whether": "Return whether",
}
"""First words of functions, and better ones."""

OBJECT = re.compile(r"[\w-]+(?: (?:down|again|out|back|up|as))? what\b", re.IGNORECASE)
"""How no docstring begins: a verb whose object is a clause instead of a thing."""
CALLED = re.compile(r"Do nothing\b|Take over\b|Called (?:when|with|by|once|for|after|before|on|in|at|from|if|as)\b")
CODE = re.compile(r"``.*?``|`[^`\n]+`", re.DOTALL)
"""What is set as code: it may quote names."""

PROPERTIES = frozenset(("property", "cached_property", "setter", "getter"))
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PATTERNS = [
    (re.compile(rf"\b(?:{pattern})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE), better)
    for pattern, better in PHRASES.items()
]
ANY = re.compile("|".join(pattern.pattern for pattern, _ in PATTERNS), re.IGNORECASE)
"""For speed: most blocks break no rule."""


@frozen
class Offence:
    """One place to rewrite."""

    path: Path
    line: int
    found: str
    better: str

    def __str__(self) -> str:
        """Write it as ``file:line: found -> better``."""
        return f"{self.path}:{self.line}: {self.found!r} -> {self.better}"


@frozen
class Block:
    """A piece of prose: a docstring, a comment of one or more lines, a message, or a file of text."""

    line: int
    text: str


def offences(path: Path, *, messages: bool = True) -> Iterator[Offence]:
    """Find each place of a file that breaks a rule; ``messages``: read its strings too, not only what documents it."""
    source = path.read_text("utf-8")
    if path.suffix != ".py":
        blocks = [Block(1, source)]
    else:
        nodes = list(ast.walk(ast.parse(source)))
        yield from first_lines(path, nodes)
        blocks = [*comments(source), *strings(nodes, messages=messages)]
    for block in blocks:
        yield from phrases(path, block)


def phrases(path: Path, block: Block) -> Iterator[Offence]:
    """Find each phrase not to use in a block."""
    plain = CODE.sub(lambda code: re.sub(r"[^\n]", "·", code[0]), block.text)
    if not ANY.search(plain):
        return
    for pattern, better in PATTERNS:
        for match in pattern.finditer(plain):
            line = block.line + plain.count("\n", 0, match.start())
            yield Offence(path, line, " ".join(match[0].split()), better)


def comments(source: str) -> Iterator[Block]:
    """Return the comments; those on lines of their own that follow each other are one block."""
    # For speed: most files have no comment that breaks a rule, and to find out where one begins and ends takes long.
    after = (line.partition("#")[2].lstrip("# ") for line in source.splitlines() if "#" in line)
    if not ANY.search("\n".join(after)):
        return
    begun, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if not lines or token.start[0] != begun + len(lines) or token.line.strip() != token.string:
            if lines:
                yield Block(begun, "\n".join(lines))
            begun, lines = token.start[0], []
        lines.append(token.string.lstrip("#").strip())
    if lines:
        yield Block(begun, "\n".join(lines))


def strings(nodes: Sequence[ast.AST], *, messages: bool) -> Iterator[Block]:
    """Return the docstrings, those of attributes too; with ``messages``, every string of several words."""
    documents = {
        id(node.value): node.value
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in nodes:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in documents or (messages and " " in node.value.strip()):
            yield Block(node.lineno, node.value)


def first_lines(path: Path, nodes: Sequence[ast.AST]) -> Iterator[Offence]:
    """Find each docstring that begins in another way than the rules allow; a class of tests may name its question."""
    for node in nodes:
        if not isinstance(node, DOCUMENTED) or not (text := ast.get_docstring(node)):
            continue
        first = text.lstrip("`").split(maxsplit=1)[0].strip("`").rstrip(",;:.")
        is_tested = "tests" in path.parts and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if not is_tested and (better := better_first(node, text, first.lower())) is not None:
            yield Offence(path, getattr(node, "lineno", 1), text.splitlines()[0], f"begin with: {better}")


def better_first(node: ast.AST, text: str, first: str) -> str | None:
    """Return how to begin instead; None when a docstring begins well."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return "a noun phrase" if first in RIDDLES else None
    if node.name.startswith("test_") or (node.name == "__init__" and first.startswith(":param")):
        return None
    if OBJECT.match(text):
        return "a verb and its object: 'Return the findings' instead of 'Return what was found'"
    decorated = {getattr(each, "attr", getattr(each, "id", "")) for each in node.decorator_list}
    if decorated & PROPERTIES:
        bad = first in RIDDLES or (first in INSTEAD_OF and first != "whether")
        return "a noun phrase, Whether, or Return" if bad else None
    if first in VERBS or CALLED.match(text):
        return None
    return INSTEAD_OF.get(first, "Return, Raise, Run, Called when, or another plain imperative verb")
