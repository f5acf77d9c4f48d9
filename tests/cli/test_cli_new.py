"""`folkmoot new`: a first app that is short, runs at once, and is never written over another."""


def test_a_new_app_has_two_short_files_and_runs_at_once(folkmoot, here):
    written = folkmoot("new mine")
    files = sorted((here / "mine").iterdir())
    checked = folkmoot("check mine/app.py")
    ran = folkmoot("run mine/app.py --workers 1 --set rounds=5")

    assert written.exit_code == 0
    assert [path.name for path in files] == ["README.md", "app.py"]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 40
    assert checked.exit_code == 0, checked.stderr
    assert ran.exit_code == 0, ran.stderr
    assert sorted((here / "mine").iterdir()) == files
    [folder] = (here / "runs").iterdir()
    assert folder.name.endswith("-mine")


def test_a_name_of_two_words_is_quoted_wherever_it_is_to_be_typed(folkmoot, here):
    written = folkmoot("new 'my app'")

    assert written.stdout.endswith("Now: folkmoot run 'my app/app.py'\n")
    for file in ("README.md", "app.py"):
        assert "folkmoot run 'my app/app.py'" in (here / "my app" / file).read_text()
    assert folkmoot("check 'my app/app.py'").exit_code == 0


def test_what_is_there_is_not_written_over(folkmoot, here):
    (here / "mine").mkdir()

    ended = folkmoot("new mine")

    assert ended.exit_code == 2
    assert "mine is already there and stays as it is. Take another name." in ended.stderr
    assert not list((here / "mine").iterdir())


def test_a_name_that_is_no_folders_is_refused(folkmoot):
    assert "'.' cannot name a folder" in folkmoot("new .").stderr
