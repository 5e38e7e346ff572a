"""The harness itself: a guide that promises too much is found out."""

from pathlib import Path

import pytest

from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT, commands_elsewhere, commands_of
from tests.docs.scenarios import Added, Scenario, Swap, seen

GUIDE = """# One
text
```bash
python -m a                       # a word
# not run here: it needs an account
python -m b
python -m c \\
    d=1
python -m e   # not run here: it downloads 138 GB
```
## Two
Not run here: it needs a GPU.
```bash
export A=1

python -m f "a#b"
```
### Three
```console
$ python -m g
what is seen
...
$ python -m h
```
## Four
```bash
# not run here:
python -m i
# about the next

python -m j
```
"""


def test_commands_are_found_with_their_reasons_and_what_is_seen() -> None:
    found = {command.text: command for command in commands_of("x.md", GUIDE)}
    reasons = {text.removeprefix("python -m "): command.reason for text, command in found.items()}
    assert list(reasons) == ["a", "b", "c d=1", "e", "export A=1", 'f "a#b"', "g", "h", "i", "j"]
    assert reasons == {
        **{"a": None, "b": "it needs an account", "c d=1": None, "e": "it downloads 138 GB"},
        **{"export A=1": "it needs a GPU.", 'f "a#b"': "it needs a GPU.", "g": None, "h": None, "i": "", "j": None},
    }
    assert found["python -m g"].shown == ("what is seen", "...")
    assert found["python -m g"].headings == ("One", "Two", "Three")
    assert found["python -m i"].headings == ("One", "Four")
    assert [command.line for command in found.values()] == [4, 6, 7, 9, 14, 16, 20, 23, 28, 31]


@pytest.mark.parametrize(
    "text",
    [
        "see\n\n    python -m src.train\n",
        "```\nmake train\n```\n",
        "```text\n$ python -m x\n```\n",
    ],
)
def test_commands_that_hide_in_other_blocks_are_found(text: str) -> None:
    assert len(commands_elsewhere("x.md", text)) == 1


def test_a_block_without_an_end_is_an_error() -> None:
    with pytest.raises(AssertionError, match="has no end"):
        commands_of("x.md", "```bash\npython -m x\n")


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("tests.docs.guides.ROOT", tmp_path)
    return tmp_path / "x.md"


def test_changes_are_declared_and_must_match(guide: Path) -> None:
    guide.write_text("# A\n```bash\npython -m src.train data.path=/d\n```\n# B\n```bash\npython -m src.prepare source=/d\n```\n")
    scenario = Scenario(
        "x.md", ("A",), (Swap("/d", "{there}", "no disk"), Added("src.train", "epochs=1", "short"), Added("src.prepare", "a", "b"))
    )
    (command,) = scenario.commands()
    assert scenario.typed(command, {"there": "/tmp/x"}) == "python -m src.train data.path=/tmp/x epochs=1"
    assert [change.to for change in scenario.unused() if isinstance(change, Added)] == ["src.prepare"]
    with pytest.raises(AssertionError, match="no command stands under 'C'"):
        Scenario("x.md", ("C",)).commands()


def test_a_section_with_or_without_its_subsections(guide: Path) -> None:
    guide.write_text("# A\n```bash\npython -m a\n```\n## B\n```bash\npython -m b\n```\n# C\n```bash\npython -m c\n```\n")
    assert [command.text for command in Scenario("x.md", ("A",)).commands()] == ["python -m a", "python -m b"]
    assert [command.text for command in Scenario("x.md", ("A",), below=False).commands()] == ["python -m a"]
    assert len(Scenario("x.md").commands()) == 3


def test_a_shell_keeps_its_folder_and_variables_and_is_a_copy(guide: Path, open_shell: OpenShell) -> None:
    guide.write_text("```bash\nexport WHO='a b'\nmkdir new && cd new\necho $WHO > x\n```\n")
    shell = open_shell()
    Scenario("x.md").play(shell)
    assert (shell.project / "new/x").read_text() == "a b\n"
    assert (shell.project / "src/train.py").read_bytes() == (ROOT / "src/train.py").read_bytes()
    assert not (ROOT / "new").exists()


def test_a_command_that_ends_otherwise_than_promised_is_named(guide: Path, open_shell: OpenShell) -> None:
    guide.write_text("```console\n$ echo 3 images; exit 2\n7 images\n```\n")
    with pytest.raises(AssertionError, match=r"x.md:2: echo 3 images; exit 2(.|\n)*exit code 2, not 0"):
        Scenario("x.md").play(open_shell())
    Scenario("x.md", exits={"echo": 2}).play(open_shell())
    guide.write_text("```console\n$ echo 3 images\n7 classes\n```\n")
    with pytest.raises(AssertionError, match=r"shows what is not seen: .'7 classes'"):
        Scenario("x.md").play(open_shell())


def test_numbers_and_dots_of_what_is_shown_stand_for_any() -> None:
    assert seen("1,281,167 images ... done", "saw 30 images and was done")
    assert not seen("1,281,167 images", "30 pictures")
