"""Medians, 90th percentiles and ratios, as a table with bars, as Markdown, and as an SVG picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from cases import Samples

GO, OURS, ALONE, EMPTY = "Go", "pycni", "one-shot", "none attached"
_WIDTH = 30  # of the bars on a terminal, in characters


@dataclass(frozen=True)
class Row:
    """One verb of one case: median and 90th percentile in milliseconds, by contender."""

    case: str
    verb: str
    values: Mapping[str, tuple[float, float]]

    def ratio(self, contender: str) -> float | None:
        """Return the ratio of its median to Go's, else to that of pycni on an empty host; None if there is neither."""
        other = self.values.get(GO) or self.values.get(EMPTY)
        if other is None or contender not in self.values:
            return None
        return self.values[contender][0] / other[0]


def rows(samples: Samples) -> list[Row]:
    """Return the rows, in the order of measurement."""
    found: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
    for (case, verb, contender), values in samples.items():
        p90 = quantiles(values, n=10)[-1] if len(values) > 1 else values[0]
        found.setdefault((case, verb), {})[contender] = (median(values), p90)
    return [Row(case, verb, values) for (case, verb), values in found.items()]


def show(table: Sequence[Row], console: Console) -> None:
    """Print a table, with a bar for the ratio to the Go plugins."""
    shown = Table("case", "verb", header_style="bold", box=None)
    for name in (GO, OURS, "ratio", "", ALONE, "ratio", "floor"):
        shown.add_column(name, justify="left" if not name else "right")
    for row in table:
        ours = row.ratio(OURS)
        bar = "" if ours is None else "█" * max(round(min(ours, 1) * _WIDTH), 1)
        shown.add_row(row.case, row.verb, *_cells(row)[:3], f"[green]{bar}", *_cells(row)[3:])
    console.print("milliseconds: median (90th percentile); ratio of medians to Go; a full bar is 1")
    console.print("rows with attached containers: the first column is pycni without attached containers")
    console.print(shown)


def markdown(table: Sequence[Row]) -> Iterator[str]:
    """Return the table as lines of Markdown."""
    yield f"| case | verb | {GO} | {OURS} | ratio | {ALONE} | ratio | floor |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in table:
        yield f"| {row.case} | {row.verb} | {' | '.join(_cells(row))} |"


def _cells(row: Row) -> list[str]:
    def time(name: str) -> str:
        return "{:.1f} ({:.1f})".format(*row.values[name]) if name in row.values else ""

    def ratio(name: str) -> str:
        value = row.ratio(name)
        return "" if value is None else f"{value:.2f}"

    return [time(GO) or time(EMPTY), time(OURS), ratio(OURS), time(ALONE), ratio(ALONE), time("floor")]


def picture(table: Sequence[Row]) -> str:
    """Return an SVG with a bar for Go and one for pycni per row."""
    compared = [row for row in table if GO in row.values and OURS in row.values]
    left, width, step = 260, 520, 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{step * (len(compared) + 2)}">',
        "<style>text { font: 13px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18">time of pycni (green) relative to Go (grey)</text>',
    ]
    for number, row in enumerate(compared, start=1):
        ratio, y = row.ratio(OURS) or 0, number * step + 4
        label = f"{row.case}, {row.verb}, {row.values[GO][0]:.1f} ms"
        parts += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{y}" width="{width}" height="18" fill="#ddd"/>',
            f'<rect x="{left}" y="{y}" width="{min(ratio, 1.15) * width:.0f}" height="18" fill="#2a7"/>',
            f'<text x="{left + width + 8}" y="{y + 14}">{ratio:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
