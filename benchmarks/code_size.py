"""Size and density of the code, whatever its layout.

Run: ``python benchmarks/code_size.py bench adapters tests``.

A token is what Python's tokenizer gives, without comments, docstrings and white space. A nested
comprehension contains another one or has several loops.
"""

import ast
import sys
import tokenize
from pathlib import Path

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def count_tokens(path: Path) -> tuple[int, int]:
    """Return the number of tokens of a file, and of the lines that have one."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in _LAYOUT]
    code = [token for token in tokens if not token.string.startswith('"""')]
    return len(code), len({token.start[0] for token in code})


def count_nested(path: Path) -> int:
    """Return the number of nested comprehensions of a file."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    outer = [node for node in nodes if isinstance(node, _COMPREHENSIONS)]
    inner = [[type(node) in _COMPREHENSIONS for node in ast.walk(each)] for each in outer]
    return sum(
        len(each.generators) > 1 or sum(found) > 1 for each, found in zip(outer, inner, strict=True)
    )


def main() -> None:
    """Print a line for each folder."""
    print(f"{'':12}{'lines':>8}{'tokens':>9}{'a line':>8}{'nested':>8}")
    for folder in sys.argv[1:] or ["bench", "adapters", "tests"]:
        files = sorted(Path(folder).rglob("*.py"))
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        counts = [count_tokens(file) for file in files]
        tokens, filled = (sum(each) for each in zip(*counts, strict=True))
        nested = sum(map(count_nested, files))
        print(f"{folder:12}{lines:8,}{tokens:9,}{tokens / filled:8.1f}{nested:8}")


if __name__ == "__main__":
    main()
