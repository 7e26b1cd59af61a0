"""The values of an authorization: which are secret, how they are put together again, and kept out of every text.

A secret field of a `Credentials` model is a `SecretStr`, or a mapping to such. Its value is given in clear, or as a
reference (`env:NAME`, `file:/path`, `credential:name`), which is what is then kept, and resolved anew at each use.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, SecretStr, ValidationError

from connectors.sdk.errors import ConfigError
from connectors.sdk.run import Credentials
from connectors.sdk.secret import Secret, hidden, is_reference
from daemon.jobs.references import resolve

Form = Literal["text", "mapping"]


class Given(NamedTuple):
    """What was given for an authorization. `secrets` by field, or field/key of a mapping: the value, or a reference."""

    plain: Mapping[str, Any]
    secrets: Mapping[str, Secret | str]


class InvalidError(ValueError):
    """Values that are not accepted; `errors` has {loc, msg} for each, without what was given."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in errors))
        self.errors = errors


def secret_fields(model: type[BaseModel]) -> dict[str, Form]:
    """Gives the secret fields of a model. Raises TypeError for a secret in a form that cannot be kept sealed."""
    found: dict[str, Form] = {}
    for name, field in model.model_fields.items():
        form = _form(field.annotation)
        if form is not None:
            found[name] = form
        elif "SecretStr" in repr(field.annotation):
            raise TypeError(f"{model.__name__}.{name}: a secret is a SecretStr, or a mapping from text to SecretStr")
    return found


def divided(model: type[BaseModel], given: Mapping[str, Any]) -> Given:
    """Takes the secrets out of what was given; what is no text where a secret belongs stays, to be refused."""
    plain, secrets = dict(given), {}
    for name, form in secret_fields(model).items():
        value = plain.get(name)
        if form == "text" and isinstance(value, str):
            secrets[name] = _kept(plain.pop(name))
        elif form == "mapping" and isinstance(value, Mapping) and all(isinstance(each, str) for each in value.values()):
            secrets |= {f"{name}/{key}": _kept(each) for key, each in plain.pop(name).items()}
    return Given(plain, secrets)


def revealed(given: Given) -> dict[str, Secret]:
    """Gives every secret, references resolved. Raises InvalidError that names each field of which nothing came."""
    found, errors = {}, []
    for name, value in given.secrets.items():
        try:
            found[name] = value if isinstance(value, Secret) else resolve(value)
        except ConfigError as error:
            errors.append({"loc": name.split("/", 1), "msg": str(error)})
    if errors:
        raise InvalidError(errors)
    return found


def accepted(model: type[Credentials], plain: Mapping[str, Any], secrets: Mapping[str, Secret]) -> Credentials:
    """Gives the values as their model. Raises InvalidError with every finding, in which no secret stands."""
    values = dict(plain)
    for name, secret in secrets.items():
        field, slash, key = name.partition("/")
        if slash:
            values.setdefault(field, {})[key] = SecretStr(secret.reveal())
        else:
            values[field] = SecretStr(secret.reveal())
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        errors = [
            {
                "loc": [hidden(part, secrets.values()) if isinstance(part, str) else part for part in each["loc"]],
                "msg": hidden(each["msg"].removeprefix("Value error, "), secrets.values()),
            }
            for each in found
        ]
    raise InvalidError(errors)  # outside of the handler: the cause would repeat what was given


def plain_text(credentials: Credentials) -> str:
    """Gives what of the values is no secret, as JSON text."""
    shown = credentials.model_dump(mode="json", exclude=set(secret_fields(type(credentials))))
    return orjson.dumps(shown).decode()


def _kept(value: str) -> Secret | str:
    return value if is_reference(value) else Secret(value)


def _form(annotation: Any) -> Form | None:
    """Gives how a field holds secrets, None when it holds none or in another way."""
    if annotation is SecretStr:
        return "text"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _form(arguments[0])
    if origin in (Union, UnionType):
        rest = [each for each in arguments if each is not NoneType]
        return _form(rest[0]) if len(rest) == 1 else None
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return "mapping" if arguments[0] is str and _form(arguments[1]) == "text" else None
    return None
