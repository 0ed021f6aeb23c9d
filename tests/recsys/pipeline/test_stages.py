from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import features
import recsys
from recsys.errors import ArtifactError
from recsys.files import provenance
from recsys.files.provenance import code_fingerprint, fingerprint, git_commit, library_versions
from recsys.pipeline.stages import Stage, StageEvent, run_stages
from recsys.progress import Progress
from recsys.retrieval.training import launch


class Run:
    """Three stages that append to one another's output, and what happened to them."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.ran: list[str] = []
        self.events: list[StageEvent] = []
        self.failing: dict[str, BaseException] = {}

    def stage(self, name: str, settings: str = "s") -> Stage:
        def run(directory: Path, progress: Progress) -> None:
            self.ran.append(name)
            (directory / "deep").mkdir()
            (directory / "deep" / "out.txt").write_text(name + settings)
            if name in self.failing:
                raise self.failing[name]

        return Stage(name, settings, run)

    def __call__(self, *, b: str = "s", fresh: bool = False, code: str | None = "code"):
        self.ran.clear()
        self.events.clear()
        stages = [self.stage("a"), self.stage("b", b), self.stage("c")]
        return run_stages(
            stages, self.workspace, on_event=self.events.append, fresh=fresh, code=code
        )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "work")


def test_a_second_run_reuses_everything(run: Run) -> None:
    first = run()
    assert run.ran == ["a", "b", "c"]
    assert [event[:2] for event in run.events[:2]] == [("a", "started"), ("a", "finished")]
    second = run()
    assert run.ran == []
    assert [event.state for event in run.events] == ["reused"] * 3
    assert all(result.reused for result in second.values())
    assert {name: r.fingerprint for name, r in first.items()} == {
        name: r.fingerprint for name, r in second.items()
    }
    assert (second["b"].path / "deep" / "out.txt").read_text() == "bs"


def test_a_changed_stage_runs_again_and_so_do_all_after_it(run: Run) -> None:
    run()
    run(b="other")
    assert run.ran == ["b", "c"]
    run(b="other")
    assert run.ran == []


def test_stages_that_do_not_read_a_changed_one_are_kept(tmp_path: Path) -> None:
    ran: list[str] = []

    def made(name: str, settings: str = "s", reads: tuple[str, ...] | None = None) -> Stage:
        def run(directory: Path, progress: Progress) -> None:
            ran.append(name)
            (directory / "out.txt").write_text(name)

        return Stage(name, settings, run, reads)

    def go(**settings: str) -> list[str]:
        ran.clear()
        stages = [
            made("a", settings.get("a", "s"), ()),
            made("b", settings.get("b", "s"), ("a",)),
            made("c", settings.get("c", "s"), ("a",)),
            made("d", settings.get("d", "s"), ("b",)),
            made("e", settings.get("e", "s")),
        ]
        run_stages(stages, tmp_path, code="code")
        return ran

    assert go() == ["a", "b", "c", "d", "e"]
    assert go(c="new") == ["c", "e"]
    assert go(b="new", c="new") == ["b", "d", "e"]
    assert go(a="new", b="new", c="new") == ["a", "b", "c", "d", "e"]
    (tmp_path / "b/out.txt").unlink()
    assert go(a="new", b="new", c="new") == ["b", "d", "e"]
    assert go(a="new", b="new", c="new") == []


@pytest.mark.parametrize("reads", [("b",), ("zzz",)])
def test_a_stage_reads_what_is_before_it(run: Run, reads: tuple[str, ...]) -> None:
    stages = [run.stage("a"), replace(run.stage("b"), reads=reads)]
    with pytest.raises(ValueError, match=f"'b' must read stages before it, got {reads[0]}"):
        run_stages(stages, run.workspace)


def test_changed_code_runs_everything_again(run: Run) -> None:
    run()
    run(code="newer")
    assert run.ran == ["a", "b", "c"]
    run(code=None)
    run(code=None)
    assert run.ran == []


def test_fresh_runs_everything_again(run: Run) -> None:
    run()
    run(fresh=True)
    assert run.ran == ["a", "b", "c"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken")])
def test_a_run_resumes_at_the_first_unfinished_stage(run: Run, error: BaseException) -> None:
    run.failing["b"] = error
    with pytest.raises(type(error)):
        run()
    assert sorted(path.name for path in run.workspace.iterdir()) == [".lock", "a"]
    run.failing.clear()
    run()
    assert run.ran == ["b", "c"]


def test_a_failed_rerun_keeps_the_older_result(run: Run) -> None:
    run()
    run.failing["b"] = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        run(b="other")
    run()
    assert run.ran == []


def test_a_result_that_lost_a_file_is_made_again(run: Run) -> None:
    run()
    (run.workspace / "b" / "deep" / "out.txt").unlink()
    run()
    assert run.ran == ["b", "c"]
    (run.workspace / "c" / "stage.json").write_text("{")
    run()
    assert run.ran == ["c"]


def test_the_same_settings_under_another_predecessor_are_another_result(run: Run) -> None:
    run()
    results = run_stages([run.stage("b"), run.stage("c")], run.workspace, code="code")
    assert not results["b"].reused


@pytest.mark.parametrize(
    ("names", "message"), [(["a", "a"], "must be distinct, got 'a' twice"), (["../a"], "match")]
)
def test_names_are_checked(run: Run, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_stages([run.stage(name) for name in names], run.workspace)


def test_a_workspace_in_use_is_refused_and_a_killed_run_is_swept(run: Run) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from recsys.pipeline.stages import Stage, run_stages\n"
        "def work(directory, progress):\n"
        "    (directory / 'half').write_text('x')\n"
        "    time.sleep(60)\n"
        "run_stages([Stage('a', 's', work)], Path(sys.argv[1]), code='code')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(run.workspace)], cwd=os.getcwd())
    try:
        deadline = time.monotonic() + 30
        while not list(run.workspace.glob("a.tmp-*/half")) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(ArtifactError, match=f"is in use by process {child.pid}"):
            run()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert list(run.workspace.glob("a.tmp-*"))
    run()
    assert run.ran == ["a", "b", "c"]
    assert not list(run.workspace.glob("*.tmp-*"))


def test_a_fingerprint_depends_on_values_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}, "x") == fingerprint({"b": [2], "a": 1}, "x")
    assert fingerprint("a", "b") != fingerprint("ab")
    with pytest.raises(TypeError, match="plain JSON values, got object"):
        fingerprint(object())


def test_provenance_of_this_checkout(tmp_path: Path) -> None:
    assert code_fingerprint() == code_fingerprint()
    assert library_versions()["python"].startswith("3.")
    assert git_commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert git_commit(tmp_path) is None


def test_the_code_that_is_fingerprinted_is_that_of_the_packages() -> None:
    root = provenance._ROOT
    for package in (features, recsys):
        assert Path(package.__file__ or "").parent.parent == root


def test_several_training_processes_find_the_packages_where_this_one_did(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: dict[str, str] = {}

    def popen(command: list[str], *, env: dict[str, str], **_: object) -> None:
        started.update(env)

    monkeypatch.setattr(launch.subprocess, "Popen", popen)
    launch._start(tmp_path, 0)
    assert Path(started["PYTHONPATH"].split(os.pathsep)[0]) == provenance._ROOT


def test_the_commit_says_when_there_are_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
        command = ["git", *identity, "-c", "commit.gpgsign=false", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "--no-verify", "-m", "first")
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("b")
    assert git_commit(tmp_path) == f"{clean}-dirty"


def test_silent_progress_passes_items_on(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    assert list(progress.track(range(3), "count")) == [0, 1, 2]
    with progress.bar(3, "count") as advance:
        advance(3)
    progress.note("done")
    assert capsys.readouterr() == ("", "")


def test_enabled_progress_writes_to_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.progress._DELAY_S", 0.0)
    stream = io.StringIO()
    progress = Progress(enabled=True, stream=stream)
    assert list(progress.track(iter("ab"), "letters", total=2, unit="letter")) == ["a", "b"]
    progress.note("a stays")
    assert "letters" in stream.getvalue()
    assert "a stays\n" in stream.getvalue()


def test_stage_notes_reach_an_enabled_progress(tmp_path: Path) -> None:
    stream = io.StringIO()
    stage = Stage("a", "s", lambda directory, progress: progress.note("inside"))
    for _ in range(2):
        run_stages([stage], tmp_path, progress=Progress(enabled=True, stream=stream), code="c")
    assert "inside\n" in stream.getvalue()
    assert "a: up to date\n" in stream.getvalue()


def test_progress_on_a_terminal_can_be_forced() -> None:
    assert Progress.on_terminal(True).enabled
    assert not Progress.on_terminal(False).enabled
