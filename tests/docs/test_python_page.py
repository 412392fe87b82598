"""The example of `docs/python.md` runs as it stands, but for the size of its training."""

import contextlib
import io

from tests.support.house import ROOT


def test_the_complete_example_runs(tmp_path, monkeypatch):
    text = (ROOT / "docs/python.md").read_text("utf-8")
    (code,) = (part.split("```")[0] for part in text.split("```python\n")[1:])
    assert code.count('preset="smoke"') == 1
    monkeypatch.chdir(tmp_path)
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code.replace('preset="smoke"', 'preset="tiny"'), names)
    assert names["run"].run_dir.is_dir() and (tmp_path / "tree.png").stat().st_size > 10_000
    assert names["found"]["games"] == 4 and names["found"]["mean"] == 500
    assert (tmp_path / "cartpole-export/SHA256SUMS").is_file()
    assert "value of the root" in printed.getvalue()
