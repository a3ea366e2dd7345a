"""The documentation names only what exists, and names all that callers and operators need."""

import re

import pytest

from end_conversation.conversation import Status
from local.process import ROOT
from operations.template import variable
from tests.template.test_template import TEMPLATE

PAGES = {page.relative_to(ROOT).as_posix(): page.read_text() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
TEXT = "".join(PAGES.values())
MAKEFILE = (ROOT / "Makefile").read_text()


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", PAGES[page], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [
    (page, target)
    for page, text in PAGES.items()
    for target in re.findall(r"\]\(([^)\s]+)\)", text)
    if not target.startswith("https://")
]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    linked = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    assert linked.exists()
    assert not anchor or anchor in anchors(linked.relative_to(ROOT).as_posix())


def test_every_placeholder_is_an_output_of_the_stack() -> None:
    outputs = set(map(variable, TEMPLATE["Outputs"]))
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*_(?:URL|ARN|NAME|ID)\b", TEXT))
    settings = set(re.findall(r'"([A-Z_]+)"', (ROOT / "src/end_conversation/settings.py").read_text()))
    assert named - settings - {"AWS_ACCESS_KEY_ID", "CONVERSATION_ID", "DEPLOYMENT_ID"} <= outputs


def test_every_setting_is_documented() -> None:
    """And the documented ones are read."""
    code = (ROOT / "src/end_conversation/settings.py").read_text()
    read = set(re.findall(r'environ(?:\.get\(|, )"([A-Z_]+)"', code))
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGES["docs/operating.md"], re.MULTILINE))
    assert documented == read


def test_every_status_and_every_reason_is_documented() -> None:
    """test_contract.py compares every answer with its example in openapi.yaml."""
    published = set(Status) - {Status.UNAVAILABLE}  # which raises instead
    assert published <= set(re.findall(r"^\| `(\w+)` \|", PAGES["docs/events.md"], re.MULTILINE))
    reasons = set(re.findall(r"^ +reason: (\w+)$", (ROOT / "openapi.yaml").read_text(), re.MULTILINE))
    assert len(reasons) > 10
    assert reasons <= set(re.findall(r"`(\w+)`", PAGES["docs/http.md"] + PAGES["docs/limits.md"]))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:`|^|&& )make ([a-z]+)", TEXT, re.MULTILINE))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:src|local|bench|tests|operations|events|docs)/[\w./-]+)`", TEXT)))
)
def test_every_path_exists(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / "docs" / path).exists()
