"""Finding adapters and their deployments by entry point, as the built-in ones and third parties register them."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from indexer import plugins
from indexer.errors import ConfigError

BUILT_IN = ["aave-v2", "aave-v3", "compound-v2", "compound-v3", "maker"]


@pytest.fixture
def register(monkeypatch):
    """Make these (name, value) pairs the only registered plugins."""

    def register(*pairs):
        entries = [EntryPoint(name, value, plugins.GROUP) for name, value in pairs]
        monkeypatch.setattr(plugins, "registered", lambda: entries)

    return register


@pytest.fixture
def package(tmp_path: Path, monkeypatch):
    """Write an importable package `third_party` from {file name: text}."""

    def package(**texts: str) -> None:
        folder = tmp_path / "third_party"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for name, text in texts.items():
            (folder / name.replace("_toml", ".toml").replace("_py", ".py")).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        for module in [name for name in sys.modules if name.startswith("third_party")]:
            monkeypatch.delitem(sys.modules, module)

    yield package
    for module in [name for name in sys.modules if name.startswith("third_party")]:
        del sys.modules[module]


ADAPTER = """
from indexer.adapter import Adapter
from indexer.model import Market, Position

class Unfinished(Adapter):
    protocol = "tiny"
    required_addresses = ("vault",)
    market_type = Market
    position_type = Position

def nothing(self, *arguments):
    return None

Tiny = type("Tiny", (Unfinished,), {name: nothing for name in Adapter.__abstractmethods__})
"""


def test_the_built_in_protocols_are_registered():
    assert sorted(plugins.installed()) == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_adapter_loads_and_names_its_addresses(name):
    adapter = plugins.adapter_class(name)
    assert adapter.protocol == name
    assert adapter.required_addresses
    assert not set(adapter.required_addresses) & set(adapter.optional_addresses)


def test_an_unknown_protocol_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"knows the protocol 'aave-3'; did you mean 'aave-v3'\?"):
        plugins.adapter_class("aave-3")


def test_an_adapter_of_a_package_is_found(register, package):
    register(("tiny", "third_party.tiny:Tiny"))
    package(tiny_py=ADAPTER)
    assert plugins.adapter_class("tiny").required_addresses == ("vault",)


def test_deployments_beside_the_adapter_are_read_once(register, package):
    register(("tiny", "third_party.tiny:Tiny"), ("other", "third_party.other:Other"))
    package(tiny_py=ADAPTER, deployments_toml="# here")
    assert plugins.deployment_files() == [("third_party/deployments.toml", "# here")]


def test_a_package_needs_no_deployments(register, package):
    register(("tiny", "third_party.tiny:Tiny"))
    package(tiny_py=ADAPTER)
    assert plugins.deployment_files() == []


def test_a_single_module_has_no_deployments(register):
    register(("tiny", "colorsys:Tiny"))
    assert plugins.deployment_files() == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package.tiny:Tiny", "cannot be loaded: No module named 'no_such_package'"),
        ("third_party.tiny:Missing", "cannot be loaded: .*Missing"),
        ("third_party.tiny:Adapter", "it lacks market_type, position_type, protocol, required_addresses, "),
        ("third_party.tiny:Unfinished", "it lacks balances, contract_answers, "),
        ("json:dumps", "is not an Adapter"),
    ],
)
def test_a_broken_registration_is_one_clear_error(register, package, value, message):
    register(("tiny", value))
    package(tiny_py=ADAPTER)
    with pytest.raises(ConfigError, match=message) as caught:
        plugins.adapter_class("tiny")
    assert "\n" not in str(caught.value)


def test_an_adapter_must_have_the_name_it_is_registered_under(register, package):
    register(("huge", "third_party.tiny:Tiny"))
    package(tiny_py=ADAPTER)
    with pytest.raises(ConfigError, match="calls itself tiny"):
        plugins.adapter_class("huge")


def test_two_packages_claiming_one_protocol_are_both_named(register):
    register(("tiny", "a.tiny:Tiny"), ("tiny", "b.tiny:Tiny"))
    with pytest.raises(ConfigError, match=r"registered twice.*a\.tiny:Tiny.*b\.tiny:Tiny"):
        plugins.installed()


def test_one_package_seen_twice_is_no_conflict(register):
    register(("tiny", "a.tiny:Tiny"), ("tiny", "a.tiny:Tiny"))
    assert list(plugins.installed()) == ["tiny"]


def test_an_unknown_protocol_that_may_be_a_key_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        plugins.adapter_class("https://node.example/v3/0123456789abcdef0123456789abcdef")
    assert "0123456789abcdef" not in str(caught.value)
