"""Where trials are kept: the journal, real databases, and a real proxy, each with several real processes."""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
import yaml
from sqlalchemy.engine import make_url

from ensembleflow.cli import main
from ensembleflow.config import load_config
from ensembleflow.datasets import open_dataset
from ensembleflow.errors import SearchError
from ensembleflow.planning.search_plan import plan_job
from ensembleflow.search import remote_storage
from ensembleflow.search.job_spec import JobSpec
from ensembleflow.search.remote_storage import open_remote_storage
from ensembleflow.search.retrying_storage import RetryingStorage
from ensembleflow.search.running_job import start_job
from ensembleflow.search.storage import open_storage
from ensembleflow.search.study import claim_slot, open_study
from ensembleflow.search.sync_to_optuna import sync_finished_trials
from support.database_lab import PASSWORD, QUOTED_PASSWORD, Server, free_port, mariadb, postgresql, refused
from support.slot_study import CHECKSUM, run_process, run_slots, search_config, search_plan
from support.trial_records import known, run_recorded

N_TRIALS = 12


@pytest.fixture(scope="module")
def postgresql_server() -> Iterator[Server]:
    with postgresql() as server:
        yield server


@pytest.fixture(scope="module")
def mariadb_server() -> Iterator[Server]:
    with mariadb() as server:
        yield server


@contextmanager
def command(*arguments: str, folder: Path, ready: str) -> Iterator[list[str]]:
    """A command of ours or of Optuna's that runs until it is stopped: the lines it has said, once one has `ready`."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if ready in line:
                break
        else:
            raise AssertionError(f"{arguments} ended: {said}")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield said
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def proxy(*arguments: str, folder: Path) -> Iterator[str]:
    """`ensembleflow storage-proxy` of a journal or a database: its URL, from what it says itself."""
    port = free_port()
    program = str(Path(sys.executable).with_name("ensembleflow"))
    with command(program, "storage-proxy", "--port", str(port), *arguments, folder=folder, ready="other nodes") as said:
        yield yaml.safe_load("".join(line for line in said if "search:" in line))["search"]["storage"]


@pytest.fixture(scope="module")
def journal_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with proxy("--storage", "somewhere/study.journal", folder=tmp_path_factory.mktemp("proxy")) as url:
        yield url


@pytest.fixture(scope="module")
def postgresql_proxy(postgresql_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with proxy("--storage", postgresql_server.url, folder=tmp_path_factory.mktemp("proxy")) as url:
        yield url


KINDS = ("journal", "postgresql", "mariadb", "journal_proxy", "postgresql_proxy")


@pytest.fixture(params=KINDS)
def storage_url(request: pytest.FixtureRequest) -> str | None:
    """Every storage."""
    if request.param == "journal":
        return None
    if request.param.endswith("proxy"):
        return str(request.getfixturevalue(request.param))
    return str(request.getfixturevalue(f"{request.param}_server").url)


def test_processes_that_start_at_once_fill_every_slot_once_and_one_that_was_killed_is_resumed(
    storage_url: str | None, tmp_path: Path
) -> None:
    # Another seed for each storage: the same server serves two of them.
    config = search_config("bohb", N_TRIALS, n_startup_trials=4, seed=len(str(storage_url)))
    told, tell = Pipe(duplex=False)
    thirds = [range(4), range(4, 8), range(8, 12)]
    processes = [
        run_process(storage_url, tmp_path, config, slots, (5, tell) if 5 in slots else None) for slots in thirds
    ]
    assert told.poll(120)
    values = told.recv()
    processes[1].kill()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, -9, 0]

    study = open_study(open_storage(tmp_path, storage_url), search_plan(config), CHECKSUM)
    states = [trial.state.name for trial in study.get_trials()]
    assert states[5] == "RUNNING"
    assert states[6:8] == ["WAITING", "WAITING"]
    run_slots(study, config, range(N_TRIALS), tmp_path)
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(N_TRIALS))
    assert all(trial.state.is_finished() for trial in trials)
    assert trials[5].params == values
    assert study.best_value == min(trial.value for trial in trials if trial.value is not None)


@pytest.mark.parametrize("storage_url", KINDS[:4], indirect=True)
def test_progress_is_shown_whatever_the_storage(
    storage_url: str | None,
    tmp_path: Path,
    digits: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    search = {"n_trials": 20, "storage": storage_url, "algorithm": "random", "metric": "macro_f1_error"}
    Path("my.yaml").write_text(yaml.safe_dump({"seed": len(str(storage_url)), "search": search}))
    assert main(["progress", "--configfile", "my.yaml"]) == 1
    assert "this study has not started" in capsys.readouterr().err
    Path("results/datasets").mkdir(parents=True)
    os.link(digits, "results/datasets/digits.h5")
    assert main(["progress", "--configfile", "my.yaml"]) == 1
    config = load_config(["my.yaml"])
    search_dir = Path("results", config.study, "search")
    with open_dataset(digits) as data:
        study = open_study(open_storage(search_dir, storage_url), search_plan(config), data.checksum)
    run_slots(study, config, range(3), search_dir)
    capsys.readouterr()
    assert main(["progress", "--configfile", "my.yaml"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("search 3/20 trials")
    assert "best macro_f1_error" in said


def test_the_proxy_serves_the_journal_of_the_configs_study(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("seed: 3\nresults_dir: elsewhere\n")
    search_dir = tmp_path / "elsewhere" / "digits-hyperband-s3" / "search"
    with proxy("--configfile", "my.yaml", folder=tmp_path) as url:
        assert url.startswith("grpc://127.0.0.1:")
        optuna.create_study(storage=open_storage(tmp_path, url), study_name="through the proxy")
    assert optuna.get_all_study_names(open_storage(search_dir)) == ["through the proxy"]


def test_a_proxy_for_other_nodes_says_how_they_reach_it_and_that_anyone_may(tmp_path: Path) -> None:
    port = free_port()
    program = str(Path(sys.executable).with_name("ensembleflow"))
    arguments = ["storage-proxy", "--storage", "a.journal", "--host", "0.0.0.0", "--port", str(port)]
    with command(program, *arguments, folder=tmp_path, ready="whoever reaches this port") as said:
        assert f"grpc://{socket.gethostname()}:{port}" in "".join(said)


def test_a_proxy_does_not_start_on_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["storage-proxy", "--storage", str(tmp_path / "a.journal"), "--port", str(port)]) == 1
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_the_readmes_dashboard_opens_a_running_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    typed = re.search(r"`(optuna-dashboard [^`]*study\.journal)`", readme)
    assert typed is not None
    config = search_config("hyperband", 4)
    search_dir = tmp_path / "results" / config.study / "search"
    study = open_study(open_storage(search_dir), search_plan(config), CHECKSUM)
    run_slots(study, config, range(2), search_dir)
    claim_slot(study, 2, search_dir).report(0.5, step=1)
    port = free_port()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with command("bash", "-c", f"exec {typed[1]} --port {port}", folder=tmp_path, ready="Listening on"):

        def read(path: str) -> dict[str, Any]:
            for _ in range(100):  # it says so before it does
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies{path}", timeout=30) as answer:
                        found: dict[str, Any] = json.load(answer)
                        return found
                except urllib.error.URLError as error:
                    if not isinstance(error.reason, ConnectionRefusedError):
                        raise
                    time.sleep(0.1)
            raise AssertionError("the dashboard does not listen")

        (shown,) = read("")["study_summaries"]
        assert shown["study_name"] == study.study_name
        trials = read(f"/{shown['study_id']}?after=0")["trials"]
        assert [trial["state"] for trial in trials][2] == "Running"
        assert trials[2]["intermediate_values"] == [{"step": 1, "value": 0.5}]


def test_a_server_that_is_started_anew_is_waited_for(postgresql_server: Server) -> None:
    storage = open_remote_storage(postgresql_server.url)
    storage.get_all_studies()
    postgresql_server.stop()
    threading.Timer(1.0, postgresql_server.start).start()
    storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "after the restart")
    assert storage.get_study_id_from_name("after the restart") is not None


def test_a_server_that_stays_away_is_told_in_one_message(postgresql_server: Server, tmp_path: Path) -> None:
    storage = open_remote_storage(postgresql_server.url)
    assert isinstance(storage, RetryingStorage)
    storage._patience_seconds = 0.5
    postgresql_server.stop()
    try:
        with pytest.raises(SearchError, match="the storage failed") as told:
            storage.get_all_studies()
    finally:
        postgresql_server.start()
    assert f"127.0.0.1:{postgresql_server.port}" in str(told.value)
    assert told.value.__suppress_context__
    with proxy("--storage", "a.journal", folder=tmp_path) as url:
        behind_proxy = open_remote_storage(url)
        assert isinstance(behind_proxy, RetryingStorage)
        behind_proxy._patience_seconds = 0.5
        behind_proxy.get_all_studies()
    with pytest.raises(SearchError, match="the storage failed"):
        behind_proxy.get_all_studies()


def test_optunas_own_answers_pass_through(postgresql_server: Server) -> None:
    storage = open_remote_storage(postgresql_server.url)
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("no such study")


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "mysql", "mysql+pymysql"])
def test_an_unreachable_database_is_one_message_with_host_and_port(scheme: str) -> None:
    port = free_port()
    message = refused(f"{scheme}://searcher:{QUOTED_PASSWORD}@127.0.0.1:{port}/trials")
    assert "the database cannot be used" in message
    assert f"127.0.0.1:{port}" in message
    assert "is the server running" in message


def test_an_unreachable_proxy_is_one_message_with_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_storage, "_CONNECT_SECONDS", 1)
    port = free_port()
    message = refused(f"grpc://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in message
    assert "ensembleflow storage-proxy" in message


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "grpc"])
def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_storage, "_CONNECT_SECONDS", 2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert address in refused(f"{scheme}://{address}" + ("" if scheme == "grpc" else "/trials"))


def test_a_wrong_password_a_missing_right_and_a_missing_database_say_what_to_do(
    postgresql_server: Server, mariadb_server: Server
) -> None:
    for server, file in ((postgresql_server, "~/.pgpass"), (mariadb_server, "~/.my.cnf")):
        message = refused(server.url.replace(QUOTED_PASSWORD, "wrong-word"))
        assert f"127.0.0.1:{server.port}" in message
        assert file in message
    for server in (postgresql_server, mariadb_server):
        assert "GRANT ALL ON" in refused(server.url.replace("searcher", "guest").replace("/trials", "/empty"))
    assert "CREATE DATABASE nowhere" in refused(postgresql_server.url.replace("/trials", "/nowhere"))
    assert "nowhere" in refused(mariadb_server.url.replace("/trials", "/nowhere"))


def test_a_database_without_a_connection_to_spare_is_asked_again_and_then_told(
    postgresql_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = make_url(postgresql_server.url)
    taken = []
    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        while True:
            taken.append(
                psycopg.connect(
                    host=parsed.host,
                    port=postgresql_server.port,
                    user=parsed.username,
                    password=PASSWORD,
                    dbname=parsed.database,
                )
            )
    try:
        monkeypatch.setattr(remote_storage, "_BUSY_SECONDS", 0.5)
        message = refused(postgresql_server.url)
        assert "max_connections" in message
        assert "storage-proxy" in message
        monkeypatch.setattr(remote_storage, "_BUSY_SECONDS", 60)
        for connection in taken[:2]:  # Optuna looks at its tables with two
            threading.Timer(1.0, connection.close).start()
        open_storage("unused", postgresql_server.url)
    finally:
        for connection in taken:
            connection.close()


def test_tables_of_another_optuna_version_are_told(postgresql_server: Server) -> None:
    url = postgresql_server.url.replace("/trials", "/other_version")
    open_storage("unused", url)
    with psycopg.connect(
        host="127.0.0.1",
        port=postgresql_server.port,
        user="searcher",
        password=PASSWORD,
        dbname="other_version",
        autocommit=True,
    ) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    message = refused(url)
    assert "another version of Optuna" in message
    assert optuna.__version__ in message


def test_a_password_file_does_for_a_password(
    postgresql_server: Server, mariadb_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / ".pgpass"))
    for path, text in (
        (".pgpass", f"127.0.0.1:*:*:searcher:{PASSWORD}\n"),
        (".my.cnf", f'[client]\npassword="{PASSWORD}"\n'),
    ):
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o600)
    for server in (postgresql_server, mariadb_server):
        open_storage("unused", server.url.replace(f":{QUOTED_PASSWORD}", "")).get_all_studies()


def test_a_proxy_variable_of_the_web_does_not_lead_astray(
    journal_proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert optuna.get_all_study_names(open_storage(tmp_path, journal_proxy)) is not None


def test_every_storage_that_takes_over_gets_the_finished_trials(storage_url: str | None, tmp_path: Path) -> None:
    config = search_config("bohb", N_TRIALS, n_startup_trials=4, seed=100 + len(str(storage_url)))
    old = open_study(open_storage(tmp_path / "old"), search_plan(config), CHECKSUM)
    run_recorded(old, config, range(N_TRIALS), tmp_path / "store")
    new = open_study(open_storage(tmp_path / "new", storage_url), search_plan(config), CHECKSUM)
    sync_finished_trials(new, tmp_path / "store", config.search)
    assert known(new) == known(old)
    for trial in new.get_trials():
        assert trial.duration is not None
        assert trial.duration.total_seconds() == pytest.approx(100, abs=50)
        assert trial.datetime_complete is not None
        assert abs((trial.datetime_complete - datetime.datetime.now()).total_seconds()) < 600


def test_two_projects_on_one_server_do_not_share_a_study(journal_proxy: str, digits: Path, tmp_path: Path) -> None:
    plan = plan_job(search_config("random", 2, seed=200, storage=journal_proxy), 0)
    with start_job(JobSpec(plan, str(digits), str(tmp_path / "one"), journal_proxy)):
        pass
    with (
        pytest.raises(SearchError, match="in another folder"),
        start_job(JobSpec(plan, str(digits), str(tmp_path / "two"), journal_proxy)),
    ):
        pass
    with start_job(JobSpec(plan, str(digits), str(tmp_path / "one"), journal_proxy)):
        pass
