"""The page, JUnit's XML, the Markdown and the schema of ``--json`` tell the verdict, and are written whole or not at all."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

import parity as package
from legacy_adapters.family import Exclusion
from parity.cli.main import cli
from parity.comparing.compare import Tolerance
from parity.decisions.audit import AuditedDecision
from parity.decisions.rule import Alternative
from parity.report import report_json
from parity.report.junit import junit
from parity.report.markdown import markdown
from parity.report.modules import modules
from parity.report.page.page import page
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, with_isolation

from .synthetic import NAN, Rec, judged
from .test_mmdet2_goldens import FILES

SCHEMA = json.loads(Path(report_json.__file__).with_name("verdict.schema.json").read_text())
FAMILY = Path(__file__).with_name("sequence_family")
LOOSE = Tolerance("fixed", rtol=0.0, atol=0.01)
RUN = [
    Rec("module_out", "a.b", [1.0, 2.0], phase="predict"),
    Rec("module_out", "a.b.c", [1.0, 2.0], call=1),
    Rec("module_out", "a", [3.0]),
    Rec("module_out", "<z>", [NAN]),
    Rec("grad", "a.b.c.weight", 0.5),
    Rec("loss", "total", 3.0),
]
HOSTILE = "</script><script>throw 1</script> | `x` \x00"


def verdict_of(folder, outcome):
    """Return a verdict of hand-written sides: a match within the tolerance, a mismatch at ``a.b.c``, a record too few."""
    new = list(RUN)
    new[1] = Rec("module_out", "a.b.c", [1.0, 2.0 + (0.25 if outcome == MISMATCH else 0.001)], call=1)
    new[4] = Rec("grad", "a.b.c.weight", 0.5 + (1.0 if outcome == MISMATCH else 0.0))
    if outcome == INCOMPARABLE:
        new = new[:-1]
    extra = Rec("module_in", "only_new", slot="mask")
    exclusion = Exclusion("new", "module_in", "only_new", "*", HOSTILE)
    verdict = judged(folder, RUN, [*new, extra], tolerance=LOOSE, exclusions=(exclusion,))
    assert verdict.outcome == outcome, verdict.reasons
    return verdict


def data_of(html):
    """Return what the page's scripts read."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def words_of(html):
    """Return what a page says without its scripts and style."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)))


@pytest.fixture(params=[MATCH, MISMATCH, INCOMPARABLE])
def verdict(request, tmp_path):
    return verdict_of(tmp_path, request.param)


def test_the_page_tells_the_outcome_the_first_divergence_and_what_was_left_out(verdict):
    html = page(verdict)
    words = words_of(html)
    assert f'<span class="badge {verdict.outcome}">{verdict.outcome}</span>' in html
    assert all(reason.replace("`", "") in words for reason in verdict.reasons)
    assert ("First divergence" in words) == (verdict.outcome != MATCH)
    if verdict.outcome == MISMATCH:
        assert "a.b.c (call 1 of the train phase) gives another output for equal inputs." in words
        assert 'href="#record-1"' in html
    if verdict.outcome == INCOMPARABLE:
        assert "Unaccounted: 1 legacy train loss total#0" in words
    assert "1 x new module_in only_new *: &lt;/script&gt;" in words
    assert "legacy new" in words and "AVX2" in words


def test_the_page_asks_nothing_of_the_network_and_runs_nothing_of_a_verdict(verdict):
    html = page(verdict)
    assert "default-src 'none'" in html and html.count("<script") == html.count("</script>") == 3
    assert re.findall(r"<(?:link|img|iframe|base)\b|\bsrc=|@import|url\(", re.sub(r"(?s)<script>.*?</script>", "", html)) == []
    assert [a for a in re.findall(r'href="([^"]*)"', html) if not a.startswith("#")] == []
    assert "The MIT License" in html and "uPlot" in html


def test_the_page_holds_every_record_in_order_of_execution(tmp_path):
    verdict = verdict_of(tmp_path, MISMATCH)
    data = data_of(page(verdict))
    rows = [dict(zip(data["columns"], row)) for row in data["records"]]
    assert [data["texts"][row["name"]] for row in rows] == [record.name for record in RUN]
    assert [row["status"] for row in rows] == [0, 2, 0, 0, 2, 0] and data["first"] == 1
    assert rows[1]["max_abs"] == 0.25 and rows[1]["ulps"] > 0 and "max_abs" not in rows[0]
    isolated = with_isolation(verdict, verdict_of(tmp_path / "again", MATCH), [])
    data = data_of(page(isolated))
    own = [dict(zip(data["columns"], row)).get("own") for row in data["records"]]
    assert data["isolated"] and own[0] == 0 and own[1] == pytest.approx(0.001, rel=1e-3)


def test_the_page_lists_the_decisions_closest_to_a_tie(tmp_path):
    near = Alternative("order", "score", 2e-7, 1.5, 3, "4 before 2")
    html = page(verdict_of(tmp_path, MATCH), [AuditedDecision("predict", "nms", 0, (near,))])
    assert "predict nms#0 order (score) 2e-07 1.5 4 before 2" in words_of(html) and "3 exact ties" in words_of(html)
    assert "Closest to a tie" not in page(verdict_of(tmp_path / "without", MATCH))


def test_modules_count_what_is_in_them(tmp_path):
    tree = modules(verdict_of(tmp_path, MISMATCH).comparisons)
    found = {module.path: (module.level, module.records, module.accepted, module.worst, module.first) for module in tree}
    assert list(found) == ["", "a", "a.b", "a.b.c", "<z>"]
    assert found[""] == (0, 6, 4, 4, 1) and found["a"] == (1, 4, 2, 4, 1)
    assert found["a.b.c"] == (3, 2, 0, 4, 1) and found["<z>"] == (1, 1, 1, None, None)


def test_junit_has_a_case_for_the_verdict_each_stage_and_the_modules_of_two_levels(verdict):
    top = ElementTree.fromstring(junit(verdict))
    cases = {suite.get("name"): [case.get("name") for case in suite] for suite in top}
    assert cases["toy.tiny.verdict"] == ["verdict"] and cases["toy.tiny.modules"] == ["a", "a.b", "<z>"]
    assert cases["toy.tiny.stages"][:2] == ["inference: a", "training: a"]
    failed = {case.get("name"): case[0] for suite in top for case in suite if len(case)}
    if verdict.outcome == MATCH:
        assert failed == {} and top.get("failures") == top.get("errors") == "0"
    if verdict.outcome == MISMATCH:
        assert set(failed) == {"verdict", "training: a", "training: gradients", "a", "a.b"}
        assert all("first divergence: `a.b.c` (call 1 of the train phase)" in found.text for found in failed.values())
        assert top.get("failures") == "5" and failed["a"].get("message") == "2 of 4 records differ"
    if verdict.outcome == INCOMPARABLE:
        assert [(name, found.tag) for name, found in failed.items()] == [("verdict", "error")]
        assert top.get("errors") == "1" and "no twin" in failed["verdict"].get("message")


def test_junit_forgives_what_the_verdict_forgives(tmp_path):
    """How methods pass values on is a side's own affair."""
    result = Rec("module_out", "m", 1.0)
    verdict = judged(tmp_path, [Rec("method_in", "m", 1.0, "f.x"), result], [Rec("method_in", "m", 2.0, "f.x"), result])
    assert verdict.outcome == MATCH and verdict.without_effect
    assert "<failure" not in junit(verdict) and "**" not in markdown(verdict)
    assert sorted(row[0] if row else 0 for row in data_of(page(verdict))["records"]) == [0, 1]


def test_markdown_is_short_and_folds_the_details(verdict):
    text = markdown(verdict)
    lines = text.splitlines()
    assert lines[0] == f"### {verdict.outcome}: toy tiny" and len(lines) < 60
    assert ("**First divergence:**" in text) == (verdict.outcome != MATCH)
    assert ("| **training: a** | 2 | 1 | 1 | `a.b.c#1` |" in lines) == (verdict.outcome == MISMATCH)
    assert text.count("<details>") == text.count("</details>") >= 2
    assert r"\</script\>" in text
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {0, 6}


def strict(schema):
    """Return the schema without room for a field that it does not describe."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if schema.get("type") == "object" and schema.get("properties") else {}
    open_ones = schema.get("properties", {}).get("legacy") == {"type": "object"}
    return {**({} if open_ones else closed), **{name: strict(one) for name, one in schema.items()}}


def faults_of(data):
    """Say what of a verdict as JSON the schema does not allow or describe."""
    errors = Draft202012Validator(strict(SCHEMA)).iter_errors(json.loads(json.dumps(data)))
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def test_the_schema_describes_every_field(verdict):
    Draft202012Validator.check_schema(SCHEMA)
    data = report_json.as_dict(verdict)
    assert faults_of(data) == [] and data["schema"] == report_json.SCHEMA == SCHEMA["properties"]["schema"]["const"]
    assert len(faults_of({**data, "another": 1})) == len(faults_of({**data, "records": "6"})) == 1


def test_run_and_compare_write_all_files_and_json_that_fits_the_schema(tmp_path, parity):
    names = ["page.html", "junit.xml", "summary.md"]
    files = [word for option, name in zip(("--html", "--junit", "--markdown"), names) for word in (option, tmp_path / name)]
    ran = parity("run", "--family", FAMILY, "--threads", "1", "--isolate", "--out", tmp_path / "run", "--json", *files)
    assert ran.exit_code in (0, 1), ran.output  # both sides round otherwise on some machines
    assert faults_of(json.loads(ran.stdout)) == [] and sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "run"])
    assert "the detector" not in words_of((tmp_path / "page.html").read_text())
    traces = tmp_path / "run" / "legacy", tmp_path / "run" / "new"
    refused = parity("compare", *traces, *files)
    assert refused.exit_code == 2 and "page.html exists; choose another name or pass --force." in refused.stderr
    (tmp_path / "junit.xml").write_text("old")
    compared = parity("compare", *traces, *files, "--force", "--json")
    assert compared.exit_code == ran.exit_code and faults_of(json.loads(compared.stdout)) == []
    failures = ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures")
    assert (failures == "0") == (compared.exit_code == 0)
    verdict = package.compare(*traces, html=tmp_path / "api.html")
    assert f'data-outcome="{verdict.outcome}"' in (tmp_path / "api.html").read_text()


def test_a_golden_check_tells_bounds_coverage_and_detections(tmp_path, parity):
    html = tmp_path / "page.html"
    result = parity("check", FILES["detr"], "--threads", "1", "--json", "--html", html)
    assert result.exit_code == 0, result.output
    shown, data, text = json.loads(result.stdout), data_of(html.read_text()), words_of(html.read_text())
    assert faults_of(shown) == []
    assert len(data["records"]) == shown["records"] > 1500 and html.stat().st_size < 3e6
    rows = [dict(zip(data["columns"], row)) for row in data["records"]]
    bounded = [row for row in rows if row.get("bounds")]
    assert len(bounded) > 100 and all(0 <= row["share"] <= 1 for row in bounded)
    assert sum(row["status"] == 0 for row in rows) == shown["identical"]
    assert "Detections, matched one to one" in text and "mmdet 2.28.2" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "none", "none", "--force"], "--force replaces files of --html, --junit and --markdown"),
        (["compare", "none", "none", "--html", "a", "--junit", "a"], "--junit and --html are both a"),
        (["compare", "none", "none", "--html", "none/a.html"], "none is not a folder"),
        (["run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--markdown", "none/a.md"], "none is not a folder"),
        (["check", "none.npz", "--junit", "pyproject.toml"], "pyproject.toml exists; choose another name or pass --force"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_files_that_cannot_be_written_are_refused_first(arguments, says):
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count("\n") == 1, result.output
