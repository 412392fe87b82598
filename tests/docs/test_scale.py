"""What limits many devices: the page's tables are what the program counts today."""

from docs import scale
from tests.support.house import ROOT


def test_the_page_has_what_is_counted(capsys):
    scale.main()
    printed = capsys.readouterr().out.splitlines()
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8").splitlines()
    assert len(printed) == 24 and [x for x in printed if x not in page] == []


def test_exchanges_by_hand():
    # A ring over 8 machines at 50 GB/s moves 2 x 7/8 of 10 GB through each: 350 ms.
    assert scale.exchange(10e9, 64, 50e9) == 350.0
    assert scale.exchange(10e9, 1, 0.0) == 0.0
