"""One table in each of its forms."""

import io

from rich.console import Console
from rich.text import Text

from smz_jax.report.tables import Table

TABLE = Table(
    ("macro", "state", "seen"),
    [("A | B", "sound", "9"), (), ("[red]<C>", Text("refuted", style="red"), "1,000"), ("D",)],
    title="Macros [of 3]",
    note="seen: in trees & games",
    left=(0, 1),
)


def test_text_is_aligned():
    assert TABLE.to_text().splitlines() == [
        "Macros [of 3]",
        "macro     state     seen",
        "--------  -------  -----",
        "A | B     sound        9",
        "[red]<C>  refuted  1,000",
        "D",
        "",
        "seen: in trees & games",
    ]
    assert Table(("a",), [], title="none of 3", note="x").to_text() == "none of 3"
    assert Table(("a", "b"), [("x", "1")]).to_text() == "a  b\n-  -\nx  1"


def test_markdown_keeps_its_columns():
    assert TABLE.to_markdown().splitlines() == [
        "| macro | state | seen |",
        "| --- | --- | --- |",
        "| A \\| B | sound | 9 |",
        "| [red]<C> | refuted | 1,000 |",
        "| D |  |  |",
    ]
    assert Table(("a",), [("x\ny",)]).to_markdown().endswith("| x y |")
    assert Table(("a",), []).to_markdown() == ""


def test_html_is_escaped():
    page = TABLE.to_html()
    assert page.startswith('<h3>Macros [of 3]</h3><div class="wide"><table><thead><tr><th>macro')
    assert "<td>[red]&lt;C&gt;</td><td>refuted</td><td>1,000</td></tr>" in page
    assert page.endswith('</div><p class="quiet">seen: in trees &amp; games</p>')
    assert page.count("<tr>") == 4
    assert "<h3>" not in Table(("a",), []).to_html()


def test_a_rich_console_shows_it_with_styles():
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    console.print(TABLE.to_rich())
    text = console.file.getvalue()
    assert "[red]<C>" in text and "\x1b[31mrefuted" in text
    assert "Macros [of 3]" in text and "seen: in trees & games" in text
    assert text.count("├") == 1 and "A | B" in text
