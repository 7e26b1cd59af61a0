"""The ODBC driver for SQL Server that this host has, how it is told where to go, and what its errors mean.

pyodbc is loaded when it is needed first: the other jobs of the provider do without it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

from connectors.sdk.errors import AuthError, ConfigError, TransientError

Family = Literal["microsoft", "freetds"]

#: Microsoft's drivers by the names under which they are installed, the best first.
_MICROSOFT: Final = ("ODBC Driver 18 for SQL Server", "ODBC Driver 17 for SQL Server")
#: Microsoft's driver within its wheel for Python, for systems like Debian.
_WHEEL: Final = "libs/linux/debian_ubuntu/*/lib/libmsodbcsql-*.so*"
_INSTALL_DRIVER: Final = (
    "install Microsoft's: msodbcsql18 from packages.microsoft.com, or `pip install mssql-python-odbc`; or FreeTDS: "
    "apt-get install tdsodbc"
)

#: Logins that are refused, databases that cannot be opened, firewalls.
_REFUSED: Final = frozenset((
    916, 4060, 4064, 18401, 18452, 18456, 18470, 18486, 18487, 18488, 40532, 40607, 40615, 40914, 47073,
))  # fmt: skip
#: The server has too much to do, or is just being moved; so many seconds later it may be better.
_BUSY: Final = {10928: 10, 10929: 10, 40501: 10, 40613: 20, 49918: 10, 49919: 10, 49920: 10}
#: What is named is not there.
_ABSENT: Final = frozenset((207, 208, 4902, 15151))
#: The user may not.
_DENIED: Final = frozenset((229, 230, 262, 297, 300, 3701))

_PREFIX: Final = re.compile(r"^(\[[^\]]*\]\s*)+")
_NUMBER: Final = re.compile(r"\((\d+)\)\s*(?:\(SQL\w+\)|;|$)")
_SUFFIX: Final = re.compile(r"\s*\(-?\d+\)\s*\(SQL\w+\)|\s*\(SQL\w+\)$|\s*\(-?\d+\)$")


class Driver(NamedTuple):
    """A driver: whose it is, and its name or the path of its library."""

    family: Family
    name: str


class AbsentError(ConfigError):
    """A table or a column is not there."""


def pyodbc() -> ModuleType:
    """Gives the module. Raises ConfigError that says what to install."""
    try:
        module = importlib.import_module("pyodbc")
    except ModuleNotFoundError as error:
        raise ConfigError("pyodbc is missing; pip install 'cohortd[azuresql]'") from error
    except ImportError as error:  # it is there, the driver manager that it is linked to is not
        raise ConfigError(f"pyodbc cannot be loaded ({error}); apt-get install unixodbc") from error
    vars(module)["pooling"] = False  # a temporary table lives as long as its connection, and no longer
    return module


def find_driver(wanted: Literal["auto", "microsoft", "freetds"]) -> Driver:
    """Gives the driver to use: Microsoft's where it is installed, then its wheel's, then FreeTDS.

    Raises ConfigError that says what to install.
    """
    installed = pyodbc().drivers()
    if wanted != "freetds":
        for name in _MICROSOFT:
            if name in installed:
                return Driver("microsoft", name)
        spec = importlib.util.find_spec("mssql_python_odbc")
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(Path(place).glob(_WHEEL)):
                return Driver("microsoft", str(path))
    if wanted != "microsoft":
        for name in installed:
            if "freetds" in name.lower():
                return Driver("freetds", name)
    what = {"auto": "ODBC driver for SQL Server", "microsoft": "ODBC driver of Microsoft's", "freetds": "FreeTDS"}
    raise ConfigError(f"there is no {what[wanted]} on this host; {_INSTALL_DRIVER}")


def connection_string(
    driver: Driver,
    *,
    server: str,
    port: int,
    database: str,
    user: str,
    password: str,
    encrypt: bool,
    trust: bool,
) -> str:
    """Makes what the driver is called with. Raises ConfigError for what it cannot be told."""
    if driver.family == "microsoft":
        values = {
            "DRIVER": driver.name,
            "SERVER": f"tcp:{server},{port}",
            "DATABASE": database,
            "UID": user,
            "PWD": password,
            "Encrypt": "yes" if encrypt else "no",
            "TrustServerCertificate": "yes" if trust else "no",
            "ConnectRetryCount": "0",  # repeats are ours, and counted
            "APP": "cohortd",
        }
        return ";".join(f"{name}={{{value.replace('}', '}}')}}}" for name, value in values.items())
    if encrypt and not trust:
        raise ConfigError(
            "FreeTDS does not check whom it talks to; install Microsoft's driver (msodbcsql18), or allow that with "
            "trust_certificate"
        )
    values = {
        "DRIVER": driver.name,
        "SERVER": server,
        "PORT": str(port),
        "DATABASE": database,
        "UID": user,
        "PWD": password,
        "TDS_Version": "7.4",
        "ClientCharset": "UTF-8",
        "Encryption": "require" if encrypt else "off",
        "APP": "cohortd",
    }
    if any("}" in value for value in values.values()):  # its versions read it differently
        raise ConfigError("FreeTDS cannot be told a database, user or password with a }; install Microsoft's driver")
    return ";".join(f"{name}={{{value}}}" for name, value in values.items())


def told(error: Exception, what: str) -> Exception:
    """Gives what one of pyodbc's errors means for a job, in the server's own words. `what`: what was being done."""
    state, number, words = _read(error)
    text = f"{what}: {words}" + (f" ({number})" if number else "")
    if number in _REFUSED or state == "28000":
        return AuthError(text)
    if number in _BUSY:
        return TransientError(text, retry_after=_BUSY[number])
    if number in _ABSENT:
        return AbsentError(text)
    if number in _DENIED:
        return ConfigError(f"{text}; let the user read it (GRANT SELECT), or name another")
    if "encryption not supported" in words.lower():
        return AuthError(f"{text}; where the network is your own, encrypt can be turned off")
    if "certificate" in words.lower():
        return AuthError(f"{text}; trust_certificate would accept any certificate")
    if state == "HYT00" or "timeout" in words.lower():
        return TransientError(f"{what} took too long: {words}")
    return TransientError(text)


def _read(error: Exception) -> tuple[str, int, str]:
    """Gives SQLSTATE, the server's number (0 without one), and the words without the names of the drivers."""
    parts: tuple[Any, ...] = error.args
    state = str(parts[0]) if len(parts) > 1 else ""
    message = str(parts[1]) if len(parts) > 1 else str(error)
    numbers = [int(each) for each in _NUMBER.findall(message)]
    known = _REFUSED | _ABSENT | _DENIED | _BUSY.keys()
    number = next((each for each in numbers if each in known), next((each for each in numbers if each), 0))
    words = [_SUFFIX.sub("", _PREFIX.sub("", each)).strip() for each in re.split(r"; (?=\[)", message)]
    return state, number, " ".join(dict.fromkeys(each.rstrip(".;") for each in words if each))[:1000]
