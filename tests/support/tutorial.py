"""The tutorial as a notebook and as a page: `python -m tests.support.tutorial`.

`docs/tutorial.py` is the source. Executing it gives `docs/tutorial.ipynb` with its outputs, and of
that follow `docs/tutorial.md` and its pictures, which the site shows.
"""

import base64
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat

from tests.support.house import ROOT

SCRIPT, NOTEBOOK, PAGE = (ROOT / f"docs/tutorial.{x}" for x in ("py", "ipynb", "md"))
PICTURES = ROOT / "docs/images/tutorial"
KINDS = {"image/png": "png", "image/gif": "gif"}
KEPT = (*KINDS, "text/plain")


def execute(preset: str) -> Any:
    """The notebook with the outputs of an execution in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell fails.
    """
    notebook = jupytext.read(SCRIPT)
    environment = {**os.environ, "SMZ_TUTORIAL_PRESET": preset}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment["PYTHONPATH"] = path
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(notebook, timeout=3600, resources=resources)
        client.execute(env=environment)
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """Without what differs from one machine to the next: ids, times, warnings, unneeded forms."""
    notebook.metadata = {"kernelspec": dict(notebook.metadata["kernelspec"])}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
        for output in outputs:
            if "execution_count" in output:
                output["execution_count"] = None
            if "data" in output:
                data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
                if len(data) > 1:
                    data.pop("text/plain", None)
                output.data, output.metadata = data, {}
        cell.outputs = outputs
    return notebook


def to_page(notebook: Any) -> tuple[str, dict[str, bytes]]:
    """The page as text, and its pictures by name."""
    blocks, pictures = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
            continue
        blocks.append(f"```python\n{cell.source}\n```")
        printed = "".join(x["text"] for x in cell.outputs if x.output_type == "stream")
        shown = [x.data for x in cell.outputs if "data" in x]
        plain = [x["text/plain"] for x in shown if "text/plain" in x]
        if text := "\n".join([*([printed.rstrip()] if printed.strip() else []), *plain]).rstrip():
            blocks.append(f"```text\n{text}\n```")
        for data in shown:
            for kind, ending in KINDS.items():
                if kind in data:
                    name = f"{len(pictures) + 1}.{ending}"
                    pictures[name] = base64.b64decode(data[kind])
                    blocks.append(f"![{heading(blocks)}](images/tutorial/{name})")
    intro = "*This page is the notebook `docs/tutorial.ipynb` with the outputs stored in it.*"
    return "\n\n".join([blocks[0].partition("\n")[0], intro, *rest(blocks)]) + "\n", pictures


def heading(blocks: list[str]) -> str:
    """The newest heading, for those who do not see a picture."""
    return re.findall(r"^#+ (.+)$", "\n".join(x for x in blocks if x[0] != "`"), re.MULTILINE)[-1]


def rest(blocks: list[str]) -> list[str]:
    """The blocks without the title, which is the first line of the first."""
    return [blocks[0].partition("\n")[2].strip(), *blocks[1:]]


def write_page(notebook: Any) -> None:
    """Writes the page and its pictures."""
    text, pictures = to_page(notebook)
    PAGE.write_text(text, encoding="utf-8")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in PICTURES.iterdir():
        path.unlink()
    for name, data in pictures.items():
        Path(PICTURES / name).write_bytes(data)


if __name__ == "__main__":
    executed = execute(os.environ.get("SMZ_TUTORIAL_PRESET", "smoke"))
    nbformat.write(executed, NOTEBOOK)
    write_page(executed)
