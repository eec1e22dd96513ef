"""Alerts leave once and in order, over real channels, whatever dies and whenever."""

import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from indexer.alert import prices
from indexer.boundary.files import open_lock
from indexer.delivery import channels, outbox
from indexer.delivery.channels import AtSend, Channel, Command, DeliveryError, Stdout
from indexer.delivery.dispatch import Dispatch
from indexer.delivery.outbox import DeliveryWorkers
from indexer.delivery.places import Places
from indexer.delivery.queue import refused
from indexer.delivery.services import Apprise, masked, scrubbed, seconds_of
from indexer.errors import ConfigError
from indexer.schema import migrations
from indexer.store.store import Store
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.disturbed import FORKS
from tests.receivers import Hook, Mailbox, until

HOUR = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store(tmp_path / "alerts.db"):
        pass
    return tmp_path / "alerts.db"


def alert(number: int, label: str = "") -> dict[str, Any]:
    named = {**dict.fromkeys(channels.PLACEHOLDERS, ""), "label": label, "health_factor": 1.05}
    return {**named, "id": f"{number:032x}", "event": "crossed", "title": f"Alert {number}", "text": f"Text {number}"}


def queue(path: Path, keys: list[str], count: int = 1, age: float = 0.0, account: str = "0x", label: str = "") -> None:
    """Queue alerts of one position as a snapshot would."""
    with sqlite3.connect(path) as conn:
        (first,) = conn.execute("select coalesce(max(number), 0) + 1 from alerts").fetchone()
        for number in range(first, first + count):
            conn.execute(
                "insert into alerts values (?, ?, 'position', 1, 'd', ?, '', '0x', 'below 1.1', ?, 'crossed', null, null, "
                "null, null, 1, '0x', 1, ?, ?)",
                (number, f"{number:032x}", account, number, json.dumps(alert(number, label)), int(time.time() - age)),
            )
            for key in keys:
                conn.execute(
                    "insert into deliveries (number, channel, place, state) values (?, ?, ?, 'pending')",
                    (number, key, key),
                )


def states(path: Path) -> list[str]:
    with sqlite3.connect(path) as conn:
        return [state for (state,) in conn.execute("select state from deliveries order by number, channel")]


def delivered(path: Path) -> Callable[[], bool]:
    return lambda: set(states(path)) == {"delivered"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSES", (0.05, 0.1, 0.2))
    monkeypatch.setattr(outbox, "LATE_SECONDS", 0.2)


# one channel at a time --------------------------------------------------------------------------------------------------


def test_http_gets_each_alert_once_in_order_with_its_id(path: Path) -> None:
    with Hook() as hook:
        channel = Apprise(hook.url)
        queue(path, [channel.key], 3)
        with DeliveryWorkers(path, [channel], HOUR):
            until(delivered(path))
        assert [taken["alert"]["id"] for taken in hook.taken] == [alert(n)["id"] for n in (1, 2, 3)]
        assert [headers["Idempotency-Key"] for headers in hook.headers] == [alert(n)["id"] for n in (1, 2, 3)]
        assert [taken["message"].strip() for taken in hook.taken] == ["Text 1", "Text 2", "Text 3"]


def test_mail_arrives_once_in_order_and_is_named_after_its_alert(path: Path) -> None:
    with Mailbox() as mailbox:
        channel = Apprise(mailbox.url)
        queue(path, [channel.key], 2)
        with DeliveryWorkers(path, [channel], HOUR):
            until(delivered(path))
        assert [mail["Subject"] for mail in mailbox.taken] == ["Alert 1", "Alert 2"]
        for number, mail in enumerate(mailbox.taken, 1):
            (message_id,) = mail.get_all("Message-ID") or ()
            assert message_id.startswith(f"<{alert(number)['id']}@")
            assert mail["Idempotency-Key"] == alert(number)["id"]


def test_a_mail_server_that_refuses_for_a_while_loses_nothing(path: Path) -> None:
    with Mailbox() as mailbox:
        mailbox.full = True
        channel = Apprise(mailbox.url)
        queue(path, [channel.key], 2)
        with DeliveryWorkers(path, [channel], HOUR):
            until(lambda: attempts(path) >= 2)
            mailbox.full = False
            until(delivered(path))
        assert [mail["Subject"] for mail in mailbox.taken] == ["Alert 1", "Alert 2"]


def attempts(path: Path) -> int:
    with sqlite3.connect(path) as conn:
        (count,) = conn.execute("select sum(attempts) from deliveries").fetchone()
    return int(count)


@pytest.mark.parametrize("mode", ["closed", "503", "hang"])
def test_a_channel_that_is_down_holds_up_no_other_and_loses_nothing(
    path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hook() as down, Hook() as up:
        channel = Apprise(f"{down.url}?rto=0.4")  # apprise's read timeout
        channel.url = down.url
        other = Apprise(up.url)
        if mode == "closed":
            down.close()
        else:
            down.mode = mode
        queue(path, [channel.key, other.key], 3)
        with DeliveryWorkers(path, [channel, other], HOUR):
            until(lambda: len(up.taken) == 3)
            until(lambda: attempts(path) >= 5)
            assert down.taken == []
            down.mode = "ok"
            down.open()
            until(delivered(path))
        for hook in (down, up):
            assert [taken["alert"]["id"] for taken in hook.taken] == [alert(n)["id"] for n in (1, 2, 3)]


def test_an_alert_nobody_took_for_days_is_given_up(path: Path) -> None:
    with Hook() as hook:
        channel = Apprise(hook.url)
        queue(path, [channel.key], 1, age=2 * HOUR)
        queue(path, [channel.key], 1)
        with DeliveryWorkers(path, [channel], HOUR):
            until(lambda: states(path) == ["expired", "delivered"])
        assert [taken["title"] for taken in hook.taken] == ["Alert 2"]


def test_the_state_is_sending_before_the_receiver_has_the_body(path: Path) -> None:
    seen = []
    with Hook() as hook:
        hook.at_receipt = lambda: seen.append(states(path))
        channel = Apprise(hook.url)
        queue(path, [channel.key])
        with DeliveryWorkers(path, [channel], HOUR):
            until(delivered(path))
    assert seen == [["sending"]]


def test_a_program_gets_the_alert_on_its_standard_input(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'said')!r}).open('a').write(sys.argv[1] + ' ' + sys.stdin.read())\n"
    )
    channel = Command(f"{sys.executable} {program} 'id={{id}}; rm -rf'")
    queue(path, [channel.key], 2)
    with DeliveryWorkers(path, [channel], HOUR):
        until(delivered(path))
    lines = (tmp_path / "said").read_text().splitlines()
    assert [json.loads(line.partition("rm -rf ")[2])["title"] for line in lines] == ["Alert 1", "Alert 2"]
    assert lines[0].startswith(f"id={alert(1)['id']}; rm -rf ")


def test_a_program_that_fails_is_tried_again(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    flag = tmp_path / "flag"
    program.write_text(
        f"import sys, pathlib\nflag = pathlib.Path({str(flag)!r})\nif not flag.exists(): sys.exit('not ready')\n"
    )
    channel = Command(f"{sys.executable} {program}")
    queue(path, [channel.key])
    with DeliveryWorkers(path, [channel], HOUR):
        until(lambda: attempts(path) >= 2)
        with sqlite3.connect(path) as conn:
            (error,) = conn.execute("select error from deliveries").fetchone()
        assert error.endswith("exited with 1: not ready")
        flag.touch()
        until(delivered(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no program"), ("no-such-program-anywhere", "no program"), ("echo {nonsense}", "{nonsense}"), ("echo {", "brace"), ("echo 'x", "quotation")],
)  # fmt: skip
def test_a_command_that_cannot_work_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Command(text)


def test_the_couriers_run_nothing_of_the_folder_at_hand(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    queue(path, [Command("true").key])
    with Dispatch(path, Places(command="true"), HOUR, {}) as couriers:
        assert couriers.settle()
    assert states(path) == ["delivered"]


@pytest.mark.slow
def test_the_lock_of_the_couriers_is_private_and_follows_no_link(path: Path, tmp_path: Path) -> None:
    lock = Path(f"{path}.courier.lock")
    lock.touch(0o644)
    lock.write_text("somebody's")
    queue(path, [Command("true").key])
    with Dispatch(path, Places(command="true"), HOUR, {}) as couriers:
        assert couriers.settle()
    assert (lock.read_text(), lock.stat().st_mode & 0o777) == ("somebody's", 0o600)
    lock.unlink()
    (tmp_path / "precious").write_text("not to be emptied")
    lock.symlink_to(tmp_path / "precious")
    with Dispatch(path, Places(command="true"), HOUR, {}) as couriers:
        assert not couriers.settle()
    with pytest.raises(OSError, match="symbolic link"):
        open_lock(lock)
    assert (tmp_path / "precious").read_text() == "not to be emptied"


def test_standard_output_gets_one_object_a_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue(path, ["stdout"], 2)
    with DeliveryWorkers(path, [Stdout()], HOUR):
        until(delivered(path))
    assert [json.loads(line)["title"] for line in capsys.readouterr().out.splitlines()] == ["Alert 1", "Alert 2"]


def test_the_outbox_of_an_older_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.db"
    older = {name: step for name, step in migrations.STEPS.items() if name < "0008_alert_kinds"}
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", older)
        with Store(path) as store, store.transaction() as conn:
            values = (
                "1, 'a', 1, 'd', '0xa', '', '0xb', 'below 1.1', 3, 'crossed', '2', 2.0, '1', 1.0, 7, '0xc', 8, '{}', 9"
            )
            conn.execute(f"insert into alerts values ({values})")
            conn.execute("insert into deliveries (number, channel, place, state) values (1, 'c', 'p', 'pending')")
    with Store(path) as store:
        cursor = store.conn.execute("select * from alerts join deliveries using (number)")
        row = dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))
        kept = {
            "kind": "position", "wallet": "0xb", "crossing": 3, "health_factor_raw": "1", "block_hash": "0xc",
            "created_at": 9, "channel": "c", "state": "pending", "failures": 0, "short": 0,
        }  # fmt: skip
        assert {name: row[name] for name in kept} == kept
        with pytest.raises(sqlite3.IntegrityError):  # a position alert without its position
            store.conn.execute(
                "insert into alerts (id, kind, chain_id, rule, crossing, event, body, created_at) "
                "values ('b', 'position', 1, 'r', 1, 'e', '', 1)"
            )


# one alert that is not taken ------------------------------------------------------------------------------------------


def ids(taken: list[dict[str, Any]]) -> list[int]:
    return [int(one["alert"]["id"], 16) for one in taken]


def refuse(label: str, status: int) -> Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes] | None]:
    """A webhook that does not take what names this label."""
    return lambda body: (status, {}, b"no") if body["alert"]["label"] == label else None


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (404, 1), (413, 1), (422, 1), (500, 5), (502, 5)])
def test_an_alert_that_is_not_taken_steps_aside_and_is_sent_short(path: Path, status: int, tries: int) -> None:
    with Hook() as hook:
        hook.judge = refuse("<evil>", status)
        channel = Apprise(hook.url)
        queue(path, [channel.key], 1, account="0xa", label="<evil>")
        queue(path, [channel.key], 2, account="0xa")
        queue(path, [channel.key], 2, account="0xb")
        with DeliveryWorkers(path, [channel], HOUR):
            until(delivered(path))
        full = [body["alert"]["id"] for body in hook.seen if body["alert"]["label"] == "<evil>"]
        assert full == [alert(1)["id"]] * tries
        assert sorted(ids(hook.taken)) == [1, 2, 3, 4, 5]
        assert [n for n in ids(hook.taken) if n in (4, 5)] == [4, 5]
        assert [n for n in ids(hook.taken) if n in (1, 2, 3)] == [1, 2, 3]
        (short,) = [body for body in hook.taken if body["alert"]["id"] == alert(1)["id"]]
        assert short["alert"]["label"] is None
        assert alert(1)["id"] in short["message"]
    with sqlite3.connect(path) as conn:
        (said,) = refused(conn)
    assert "did not accept 1 alerts" in said
    assert str(status) in said


@pytest.mark.parametrize("status", [400, 500])
def test_an_alert_that_is_not_even_taken_short_is_refused_and_the_others_go_on(path: Path, status: int) -> None:
    with Hook() as hook:
        hook.judge = lambda body: (status, {}, b"") if body["alert"]["id"] == alert(1)["id"] else None
        channel = Apprise(hook.url)
        queue(path, [channel.key], 3, account="0xa")
        with DeliveryWorkers(path, [channel], HOUR) as workers:
            until(lambda: states(path) == ["refused", "delivered", "delivered"])
            assert not workers.settle(5)
        assert ids(hook.taken) == [2, 3]
    with sqlite3.connect(path) as conn:
        assert "1 of them not even as a short message" in refused(conn)[0]


def test_a_channel_that_refuses_everybody_loses_nothing(path: Path) -> None:
    with Hook() as hook:
        hook.judge = lambda _: (403, {}, b"blocked")
        channel = Apprise(hook.url)
        queue(path, [channel.key], 2, account="0xa")
        queue(path, [channel.key], 1, account="0xb")
        with DeliveryWorkers(path, [channel], HOUR):
            until(lambda: attempts(path) >= 12)
            assert set(states(path)) <= {"pending", "trying", "sending"}
            hook.judge = lambda _: None
            until(delivered(path))
        assert sorted(ids(hook.taken)) == [1, 2, 3]


@pytest.mark.slow
def test_a_long_outage_costs_at_most_the_details_of_the_oldest_alert(path: Path) -> None:
    over: list[bool] = []

    def busy(body: dict[str, Any]) -> tuple[int, dict[str, str], bytes] | None:
        """Ends, once it may, with the next attempt of the oldest alert."""
        if over and body["alert"]["id"] == alert(1)["id"]:
            over.append(True)
        return None if len(over) > 1 else (503, {}, b"")

    with Hook() as hook:
        hook.judge = busy
        channel = Apprise(hook.url)
        for account in ("0xa", "0xa", "0xb", "0xc"):
            queue(path, [channel.key], 1, account=account, label="mine")
        with DeliveryWorkers(path, [channel], HOUR):
            until(lambda: attempts(path) >= 40)
            over.append(True)
            until(delivered(path))
        assert sorted(ids(hook.taken)) == [1, 2, 3, 4]
        assert [n for n in ids(hook.taken) if n in (1, 2)] == [1, 2]
        assert [b["alert"]["label"] for b in sorted(hook.taken, key=lambda b: b["alert"]["id"])][1:] == ["mine"] * 3


@pytest.mark.slow
def test_retry_after_leaves_the_channel_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it goes on with the alert that it put off, however long it took to write that down."""
    monkeypatch.setattr(outbox.log, "warning", lambda *_: time.sleep(0.2))
    with Hook() as hook:
        times: list[float] = []
        hook.at_receipt = lambda: times.append(time.monotonic())
        hook.judge = lambda _: (429, {"Retry-After": "2"}, b"") if hook.attempts == 1 else None
        channel = Apprise(hook.url)
        queue(path, [channel.key], 1, account="0xa")
        queue(path, [channel.key], 1, account="0xb")
        with DeliveryWorkers(path, [channel], HOUR):
            until(delivered(path))
        assert ids(hook.taken) == [1, 2]
        assert len(times) == 3
        assert times[1] - times[0] > 1.9  # forty usual pauses


def test_retry_after_outlasts_a_restart_and_is_believed_up_to_an_hour(path: Path) -> None:
    with Hook() as hook:
        hook.judge = lambda _: (503, {"Retry-After": "100000"}, b"")
        channel = Apprise(hook.url)
        queue(path, [channel.key])
        for _ in range(2):
            with DeliveryWorkers(path, [channel], HOUR) as workers:
                until(lambda: states(path) == ["pending"] and hook.attempts == 1)
                assert not workers.settle(10)
    with sqlite3.connect(path) as conn:
        (due,) = conn.execute("select next_attempt_at - ? from deliveries", (time.time(),)).fetchone()
    assert 3500 < due <= 3600


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), ("0.5", 0.5, 0.5), ("in an hour", 1, 3600), ("soon", None, None), (None, None, None)],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, least: float | None, most: float | None) -> None:
    seconds = seconds_of(formatdate(time.time() + 3600, usegmt=True) if header == "in an hour" else header)
    assert (seconds is None) == (least is None)
    assert seconds is None or least is None or most is None or least <= seconds <= most


def test_a_mail_server_that_refuses_one_mail_for_good_takes_the_others(path: Path) -> None:
    with Mailbox() as mailbox:
        mailbox.refuse = "Alert 1"
        channel = Apprise(mailbox.url)
        queue(path, [channel.key], 2)
        with DeliveryWorkers(path, [channel], HOUR):
            until(delivered(path))
        assert [mail["Subject"] for mail in mailbox.taken] == ["Alert: crossed", "Alert 2"]
    with sqlite3.connect(path) as conn:
        assert "554" in refused(conn)[0]


@pytest.mark.parametrize("label", ["a\x00b", "x" * 200_000, "\x1b[31m"])
def test_a_label_that_is_no_argument_holds_up_nobody(path: Path, tmp_path: Path, label: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys, pathlib\npathlib.Path({str(tmp_path / 'said')!r}).open('a').write(sys.argv[1] + '|')\n"
    )
    channel = Command(f"{sys.executable} {program} '{{id}} {{label}}'")
    queue(path, [channel.key], 1, label=label)
    queue(path, [channel.key], 1)
    with DeliveryWorkers(path, [channel], HOUR):
        until(delivered(path))
    said = [one.split(" ", 1) for one in (tmp_path / "said").read_text().split("|")[:-1]]
    assert [int(identity, 16) for identity, _ in said] == [1, 2]
    assert "\x00" not in said[0][1]
    assert "\x1b" not in said[0][1]


@pytest.mark.parametrize("body", ["[" * 10**6, "{}," * 10**6, "[]", "", "null", '{"label": NaN}'])
def test_an_alert_that_was_spoilt_in_the_file_holds_up_nobody(path: Path, body: str) -> None:
    with Hook() as hook:
        channel = Apprise(hook.url)
        queue(path, [channel.key], 2)
        with sqlite3.connect(path) as conn:
            conn.execute("update alerts set body = ? where number = 1", (body,))
        with DeliveryWorkers(path, [channel], HOUR):
            until(lambda: states(path) == ["refused", "delivered"])
        assert ids(hook.taken) == [2]
    with sqlite3.connect(path) as conn:
        assert "alerts.body of number 1 is damaged" in refused(conn)[0]


# secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "tgram://123456789:AAsecretSECRETsecret/42424242",
        "slack://AAsecret1/BBsecret2/CCsecret3/#room",
        "mailto://user:secret12@example.org?to=a@example.org&token=secret34",
        "json://user:secret12@example.org/secretpath99?+Authorization=secret34",
        "discord://4174216298/secretJHMHI8qBe7bk2ZwO5U711o3dV",
    ],
)
def test_no_secret_of_a_channel_is_shown(url: str) -> None:
    assert "secret" not in masked(url)
    assert "SECRET" not in masked(url)
    parts = [part for part in url.replace("?", "/").replace(":", "/").replace("=", "/").split("/") if "secret" in part]
    assert "secret" not in scrubbed(f"refused: {' '.join(parts)} {url}", url)


def test_a_bad_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Apprise("nonsense://secret123")
    assert "secret" not in str(caught.value)


def test_a_failed_delivery_logs_no_secret(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Hook() as hook:
        hook.mode = "503"
        channel = Apprise(hook.url.replace("/hook", "/secret123456").replace("//", "//user:secretpass@"))
        queue(path, [channel.key])
        with caplog.at_level(logging.INFO), DeliveryWorkers(path, [channel], HOUR):
            until(lambda: attempts(path) >= 2)
        with sqlite3.connect(path) as conn:
            (error,) = conn.execute("select error from deliveries").fetchone()
    assert "503" in error
    assert "did not accept an alert" in caplog.text
    assert "secret" not in caplog.text + error


# death at every point -------------------------------------------------------------------------------------------------


class Dying(Channel):
    """Dies at one point of a delivery, as a kill would; it writes down what it sends."""

    key = place = "dying"

    def __init__(self, sent: Path, point: str) -> None:
        self.sent, self.point = sent, point

    def deliver(self, alert: channels.Alert, at_send: AtSend) -> None:
        if self.point == "connecting":
            os._exit(9)
        at_send()
        with self.sent.open("a") as file:
            file.write(alert["id"] + "\n")
        if self.point == "sent":
            os._exit(9)
        if self.point == "unanswered":
            time.sleep(1)
            os._exit(9)


def deliver_in_a_child(path: Path, sent: Path, point: str) -> None:
    outbox.LATE_SECONDS = 0.2
    with DeliveryWorkers(path, [Dying(sent, point)], HOUR):
        until(delivered(path))


@pytest.mark.slow
@pytest.mark.parametrize(("point", "times"), [("connecting", 1), ("sent", 1), ("unanswered", 2), ("never", 1)])
def test_death_in_a_delivery(path: Path, tmp_path: Path, point: str, times: int) -> None:
    queue(path, ["dying"])
    for where in (point, "never"):
        child = FORKS.Process(target=deliver_in_a_child, args=(path, tmp_path / "sent", where))
        child.start()
        child.join(60)
    assert states(path) == ["delivered"]
    assert (tmp_path / "sent").read_text().splitlines() == [alert(1)["id"]] * times


def test_a_defect_in_a_channel_is_a_failed_attempt(path: Path) -> None:
    class Broken(Channel):
        key = place = "broken"
        calls = 0

        def deliver(self, alert: channels.Alert, at_send: AtSend) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ZeroDivisionError
            if self.calls == 2:
                raise DeliveryError("no")

    queue(path, ["broken"])
    with DeliveryWorkers(path, [Broken()], HOUR):
        until(delivered(path))
    assert attempts(path) == 3


def test_an_alert_that_a_plugin_cannot_be_given_is_sent_short(path: Path) -> None:
    class Picky(Channel):
        key = place = "picky"

        def deliver(self, alert: channels.Alert, at_send: AtSend) -> None:
            if alert["label"]:
                raise ValueError("embedded null byte")

    queue(path, ["picky"], label="mine")
    with DeliveryWorkers(path, [Picky()], HOUR):
        until(delivered(path))
    assert attempts(path) == 2


# the whole program, killed at random --------------------------------------------------------------------------------------


@pytest.fixture
def market(needs_node: None) -> Iterator[AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(seed=1, users=12)
        yield market


def fragile(market: AaveV3) -> tuple[str, str]:
    """A borrower with one collateral that is not also its debt, and that collateral's symbol."""
    for user in market.users:
        collateral, debt, _, _, _, health = market.answer(user)
        if not debt or not 10**18 < health < 10**20 or not collateral:
            continue
        for symbol in market.reserves:
            with market.rewound():
                market.move_price(symbol, 0.5)
                after = market.answer(user)
            if after[0] * 100 < collateral * 55 and after[1] == debt:
                return user, symbol
    raise AssertionError("nobody with a single collateral")


def test_kills_and_dead_channels_neither_lose_nor_repeat(market: AaveV3, tmp_path: Path) -> None:
    rng = random.Random(7)
    user, symbol = fragile(market)
    health, price = market.answer(user)[5], market.price(symbol)
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    program = [sys.executable, "-m", "indexer", "--config", str(tmp_path / "indexer.toml"), "--db", str(tmp_path / "watch.db")]  # fmt: skip
    dollars = f"{symbol}<{price * 115 * 10**16 // health / 10**8:.8f}"  # where the health factor is 1.15
    subprocess.run([*program, "watch", "add", user, "--below", "1.3", "--below", "1.1", "--label", "me", "--price", dollars], check=True)  # fmt: skip
    low = str(prices.parse(dollars))
    # health factors to go to, and what is told there: threshold and event
    script: list[tuple[float, list[tuple[str, str]]]] = [
        (1.5, []),
        (1.29, [("below 1.3", "crossed")]),
        (1.31, []),  # inside the hysteresis of 2 %
        (1.28, []),
        (1.09, [("below 1.1", "crossed"), (low, "crossed")]),
        (1.2, [("below 1.1", "recovered"), (low, "recovered")]),
        (1.05, [("below 1.1", "crossed"), (low, "crossed")]),
        (1.5, [("below 1.1", "recovered"), ("below 1.3", "recovered"), (low, "recovered")]),
        (1.02, [("below 1.3", "crossed"), ("below 1.1", "crossed"), (low, "crossed")]),
        (1.11, []),
        (1.6, [("below 1.1", "recovered"), ("below 1.3", "recovered"), (low, "recovered")]),
    ]
    expected = [told for _, here in script for told in here]
    kills = 0
    with Hook() as hook, Mailbox() as mailbox:
        run = [*program, "watch", "run", "--chain", "devnet", "--notify", hook.url, "--notify", mailbox.url]
        process: subprocess.Popen[bytes] | None = None
        errors = (tmp_path / "errors").open("wb")
        try:
            for place, (goal, _) in enumerate(script):
                mailbox.full = place in (2, 3, 4, 8)
                if place in (5, 6):
                    hook.close()
                else:
                    hook.open()
                    hook.mode = "503" if place in (1, 2) else "ok"
                market.set_price(symbol, int(price * goal * 10**18 / health))
                assert abs(market.answer(user)[5] / 10**18 - goal) < 0.005
                block = market.node.block_number()
                while True:
                    if process is None:
                        process = subprocess.Popen(run, stderr=errors)
                    killed = rng.random() < 0.5 and kills < 7
                    try:
                        until(
                            lambda block=block: judged(tmp_path / "watch.db") >= block,
                            rng.uniform(0.3, 3) if killed else 60,
                        )
                    except AssertionError:
                        assert killed, (tmp_path / "errors").read_text()
                    if killed:
                        time.sleep(rng.choice([0, 0.005, 0.02, 0.1]))
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                        process, kills = None, kills + 1
                    if judged(tmp_path / "watch.db") >= block:
                        break
            hook.open()
            hook.mode, mailbox.full = "ok", False
            if process is None:
                process = subprocess.Popen(run, stderr=errors)
            until(delivered(tmp_path / "watch.db"), 60)
        finally:
            if process is not None:
                process.terminate()
                assert process.wait(30) == 0
            errors.close()
        with sqlite3.connect(tmp_path / "watch.db") as conn:
            decided = conn.execute("select id, rule, event from alerts order by number").fetchall()
            assert judged(tmp_path / "watch.db") >= block
        assert [(rule, event) for _, rule, event in decided] == expected
        of_position = [identity for identity, rule, _ in decided if rule != low]
        of_price = [identity for identity, rule, _ in decided if rule == low]
        for taken in ([one["alert"]["id"] for one in hook.taken], [m["Idempotency-Key"] for m in mailbox.taken]):
            assert [identity for identity in taken if identity in of_position] == of_position
            assert [identity for identity in taken if identity in of_price] == of_price
            assert len(taken) == len(decided)
        assert kills >= 4
        print(f"{kills} kills, {len(decided)} alerts on two channels, {hook.attempts} requests")


def judged(path: Path) -> int:
    """The block of the last snapshot that the rules have seen."""
    if not path.exists():
        return -1
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as conn:
        try:
            (block,) = conn.execute("select max(block_number) from watch_states").fetchone()
        except sqlite3.OperationalError:
            return -1
    return -1 if block is None else int(block)
