"""A table of rows, written once and rendered as text, Markdown, HTML or for a rich console."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

    Cell = str | Text
    """What a cell shows; a `Text` has a style on a rich console and is plain elsewhere."""


@dataclass(frozen=True)
class Table:
    """Rows under named columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence["Cell"]]
    """As many cells each as there are columns, or fewer; an empty row parts those around it."""
    title: str = ""
    note: str = ""
    """What the columns mean, below the table."""
    left: Sequence[int] = (0,)
    """Columns of words, which begin at the left; numbers end at the right."""

    def to_text(self) -> str:
        """Aligned lines under the title, the note below; without a row the title alone."""
        cells = self._plain()
        if not cells:
            return self.title
        columns = []
        for number, (head, *column) in enumerate(zip(self.columns, *cells, strict=True)):
            width = max(map(len, [head, *column]))
            align = str.ljust if number in self.left else str.rjust
            columns.append([align(cell, width) for cell in (head, "-" * width, *column)])
        lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
        note = ["", self.note] if self.note else []
        return "\n".join([*([self.title] if self.title else []), *lines, *note])

    def to_markdown(self) -> str:
        """A table without title and note; empty without a row."""
        rows = self._plain()
        if not rows:
            return ""
        lines = [[*self.columns], ["---"] * len(self.columns), *rows]
        clean = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in lines)
        return "\n".join(f"| {' | '.join(row)} |" for row in clean)

    def to_html(self) -> str:
        """Title, table and note; all text is escaped."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n"
            for row in self._plain()
        )
        title = f"<h3>{escape(self.title)}</h3>" if self.title else ""
        note = f'<p class="quiet">{escape(self.note)}</p>' if self.note else ""
        table = f"<table><thead><tr>{head}</tr></thead>\n{body}</table>"
        return f'{title}<div class="wide">{table}</div>{note}'

    def to_rich(self) -> "RichTable":
        """With title and note (as its caption), for `rich.print`."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self.title) or None, caption=Text(self.note) or None)
        for number, name in enumerate(self.columns):
            table.add_column(Text(name), justify="left" if number in self.left else "right")
        for row in self.rows:
            if row:
                table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
            else:
                table.add_section()
        return table

    def _plain(self) -> list[list[str]]:
        """The rows as strings, each of full length."""
        width = len(self.columns)
        return [[*map(str, row), *[""] * (width - len(row))] for row in self.rows if row]
