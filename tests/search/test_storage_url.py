"""URLs of storages: those that are none, and passwords that nobody is to see."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from ensembleflow.config import Config, parse_config
from ensembleflow.config.storage_url import without_password, without_passwords
from ensembleflow.errors import ConfigError
from ensembleflow.io import record_run
from support.database_lab import PASSWORD, QUOTED_PASSWORD, refused


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///trials.db",
        f"postgres://searcher:{QUOTED_PASSWORD}@127.0.0.1/trials",
        f"postgresql+psycopg2://searcher:{QUOTED_PASSWORD}@127.0.0.1/trials",
        f"postgresql://searcher:{QUOTED_PASSWORD}@127.0.0.1:port/trials",
        f"postgresql://searcher:{QUOTED_PASSWORD}@127.0.0.1:99999/trials",
        f"postgresql://searcher:{PASSWORD}@127.0.0.1/trials",
        f"postgresql://searcher:{QUOTED_PASSWORD}@127.0.0.1",
        f"postgresql://127.0.0.1/trials?password={QUOTED_PASSWORD}&no_such_option=1",
        f"mysql://127.0.0.1/trials?password={QUOTED_PASSWORD}&no_such_option=1",
        "mysql://",
        "grpc://",
        "grpc://host:port",
        f"grpc://searcher:{QUOTED_PASSWORD}@host:1",
        "nonsense",
    ],
)
def test_a_url_of_no_storage_is_one_message(url: str) -> None:
    refused(url)


@given(
    user=st.text(min_size=1), password=st.text(min_size=3), host=st.from_regex(r"[a-z]{1,5}(:\d{2,4})?", fullmatch=True)
)
def test_no_password_is_shown_and_everything_else_is(user: str, password: str, host: str) -> None:
    url = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{host}/trials"
    shown = without_password(url)
    assert shown == f"postgresql://{quote(user, safe='')}:***@{host}/trials"
    assert make_url(shown).host == make_url(url).host
    assert without_passwords({"search": {"storage": url}, "list": [url, 1, None]}) == {
        "search": {"storage": shown},
        "list": [shown, 1, None],
    }
    for plain in (f"postgresql://{quote(user, safe='')}@{host}/trials", "grpc://host:13000", "results", "a:b@c"):
        assert without_password(plain) == plain


def test_a_password_gets_into_no_recorded_config_and_no_message_about_the_config(tmp_path: Path) -> None:
    url = f"postgresql://searcher:{QUOTED_PASSWORD}@db/trials"
    config: Config = parse_config({"search": {"storage": url}})
    assert config.search.storage == url
    record_run(config.model_dump_json(), tmp_path / "run_config.yaml", tmp_path / "provenance.json")
    recorded = (tmp_path / "run_config.yaml").read_text()
    assert yaml.safe_load(recorded)["search"]["storage"] == "postgresql://searcher:***@db/trials"
    for wrong in ({"search": {"storage": {"url": url}}}, {"search": [url]}, {"search": {"storage": f"x{url}"}}):
        with pytest.raises(ConfigError) as told:
            parse_config(wrong)
        assert QUOTED_PASSWORD not in str(told.value)
        assert "***" in str(told.value)
