"""The tests themselves: a folder for every room of tasks/, and files short enough to be read at once."""

from runs import ROOT

LONGEST = 300  # lines


def test_no_file_of_tests_is_long():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.glob("tests/**/*.py")}
    long = {path: lines for path, lines in lengths.items() if lines > LONGEST}
    assert not long, f"more than {LONGEST} lines: split them by subject"


def test_every_room_has_a_folder_of_tests():
    rooms = [path.parent.name for path in ROOT.glob("tasks/*/__init__.py")]
    assert rooms
    assert not [room for room in rooms if not any(ROOT.glob(f"tests/{room}/test_*.py"))]
