"""The page works in a browser: no error, nothing from the network, few elements, every part usable by keyboard."""

import json
import re
import shutil
import subprocess

import pytest

from parity.comparing.compare import Tolerance
from parity.report.page.page import page
from parity.verdict.verdict import MISMATCH

from .synthetic import Rec, judged

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
RECORDS, FIRST = 1500, 900
#: Uses the page as a person does, and writes what it saw into the page.
USE = """
const seen = {}, get = (id) => document.getElementById(id), lines = () => document.querySelectorAll("#rows tbody tr").length;
seen.elements = document.querySelectorAll("*").length;
seen.rows = lines();
seen.said = get("records-said").textContent;
seen.heat = [...document.querySelectorAll("#why .heat canvas")].map((it) => it.getAttribute("aria-label"));
seen.canvas = document.querySelectorAll("#chart canvas").length;
get("more-rows").click();
seen.more = lines();
seen.closed = document.querySelectorAll("#tree .module").length;
get("open-differing").click();
seen.opened = document.querySelectorAll("#tree .module").length;
get("filter-text").value = "layers.1.norm";
get("filter-text").dispatchEvent(new Event("input", { bubbles: true }));
seen.filtered = get("records-said").textContent;
get("depth-measure").selectedIndex = 1;
get("depth-measure").dispatchEvent(new Event("change"));
location.hash = "record-%d";
setTimeout(() => {
  seen.focus = document.activeElement.textContent;
  seen.detail = document.querySelector("#rows tr.detail").textContent;
  seen.more_heat = document.querySelectorAll("#rows tr.detail .heat canvas").length;
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  seen.loaded = performance.getEntriesByType("resource").length;
  seen.nameless = [...document.querySelectorAll("input, select, button")].filter((it) => !it.hidden && !it.labels?.length && !it.textContent.trim()).length;
  seen.errors = document.documentElement.dataset.errors || "none";
  document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
}, 300);
""" % FIRST  # fmt: skip


@pytest.fixture(scope="module")
def mismatch(tmp_path_factory):
    """Return a verdict of 1,500 records that differ from the 900th on."""
    names = [f"part{part}.layers.{layer}.{leaf}" for part in range(3) for layer in range(5) for leaf in ("ffn.0", "norm")]
    places = [names[number * len(names) // RECORDS] for number in range(RECORDS)]
    gaps = [0.25 if number >= FIRST else 1e-6 * (number % 3) for number in range(RECORDS)]
    legacy = [Rec("module_out", name, [1.0, 2.0], call=number) for number, name in enumerate(places)]
    new = [Rec("module_out", name, [1.0 + gap, 2.0], call=number) for number, (name, gap) in enumerate(zip(places, gaps))]
    verdict = judged(tmp_path_factory.mktemp("sides"), legacy, new, tolerance=Tolerance("fixed", 0.0, 1e-5))
    assert verdict.outcome == MISMATCH
    return verdict


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (`apt-get install chromium`)")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (500, "dark")])
def test_the_page_can_be_used(mismatch, tmp_path, width, scheme):
    html = page(mismatch)
    file = tmp_path / "page.html"
    file.write_text(html.replace("</body>", f"<script>{USE}</script></body>"), encoding="utf-8")
    dark = ["--force-dark-mode", "--enable-features=WebUIDarkMode"] if scheme == "dark" else []
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", *dark,
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=5000",
         "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    seen = json.loads(found[1].replace("&amp;", "&").replace("&gt;", ">").replace("&lt;", "<"))
    assert seen["errors"] == "none" and 'data-ready="yes"' in done.stdout
    assert seen["loaded"] == 0 and seen["wide"] <= 0 and seen["nameless"] == 0
    assert seen["elements"] < 1500 and seen["canvas"] == 1
    assert (seen["rows"], seen["more"], seen["said"]) == (100, 200, "600 records of 1,500")
    assert seen["closed"] == 4 and seen["opened"] > 20
    assert seen["filtered"] == "50 records of 1,500"
    assert seen["focus"] == f"part1.layers.4.ffn.0#{FIRST}"
    assert "Differs." in seen["detail"] and "0.25" in seen["detail"]
    assert seen["heat"] == ["axis 0: differs at 0"] and seen["more_heat"] == 1
