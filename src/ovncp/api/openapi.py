"""The description of the interface (OpenAPI 3.1): of the databases' schemas as they are now.

What is the same for all resources is said once, and each resource's fields follow from the schema
that its server has. The routes of other parts describe themselves. `x-role` is what an operation
takes of who asks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ovncp.api import location, problem, reading, writing
from ovncp.api.identification import COOKIE
from ovncp.api.location import DATABASES, PREFIX
from ovncp.api.platform import Platform
from ovncp.api.problem import ProblemDetails
from ovncp.auth.decision import AREAS, NETWORK
from ovncp.ovn import filters
from ovncp.ovn.barrier import LEVELS
from ovncp.ovn.resources import BY_NAME, BY_TABLE, RESOURCES, Parent, Resource
from ovncp.ovn.southbound import FIELD_SCHEMAS, FIELDS, FILTERS
from ovncp.ovn.values import atom_schema, json_schema
from ovncp.ovsdb.schema import VERSION, Column
from ovncp.ovsdb.table import Table

Object = dict[str, Any]

VERSION_OF_OPENAPI = "3.1.0"
ABOUT = """\
One interface to OVN's Northbound and Southbound databases. The fields of a row are the columns of
its table in the schema of OVN, in which a set is an array, a map an object, and what may be missing
null. Wherever a row is asked for, its uuid or its name will do.

A change takes effect with the answer, and is seen by who made it wherever they ask next. Errors are
`application/problem+json`; their `type` is for programs, and `errors` names fields and rules.
"""

_UUID = {"type": "string", "format": "uuid", "readOnly": True}


class Description:
    """The description that `app` gives of itself; made anew when a schema is another one."""

    def __init__(self, app: FastAPI, platform: Platform) -> None:
        self._app = app
        self._platform = platform
        self._made_of: tuple[object, ...] = ()
        self._made: Object = {}

    def __call__(self) -> Object:
        """The OpenAPI object."""
        made_of = tuple(replica.database for replica in self._platform.replicas.values())
        if made_of != self._made_of:
            self._made, self._made_of = self._make(), made_of
        return self._made

    def _make(self) -> Object:
        made = get_openapi(
            title=self._app.title,
            version=self._app.version,
            openapi_version=VERSION_OF_OPENAPI,
            description=ABOUT,
            routes=self._app.routes,
        )
        for item in made["paths"].values():
            for operation in item.values():
                _answer_problems(operation)
        components = made.setdefault("components", {})
        components.setdefault("parameters", {}).update(_PARAMETERS)
        components.setdefault("responses", {})["Problem"] = _PROBLEM
        schemas = components.setdefault("schemas", {})
        schemas.update(_SHARED)
        for name in _FRAMEWORKS_PROBLEMS:
            schemas.pop(name, None)
        for resource in RESOURCES:
            table = self._table(resource)
            if table is not None:
                schemas.update(_schemas(resource, table))
                made["paths"].update(self._paths(resource, table))
        made["paths"].update(_raw_paths())
        if self._platform.accounts is not None:
            _describe_who(made)
        return made

    def _table(self, resource: Resource) -> Table | None:
        rows = self._platform.replicas[resource.database].rows.get(resource.table)
        return None if rows is None else rows.table

    def _paths(self, resource: Resource, table: Table) -> Iterator[tuple[str, Object]]:
        path = f"{PREFIX}/{resource.name}"
        makes = table.schema.is_root and not resource.is_read_only
        yield path, _collection(resource, table, makes=makes)
        yield f"{path}/{{row}}", {"parameters": [_ROW], **_item(resource)}
        for parent in resource.parents:
            path = f"{PREFIX}/{parent.resource}/{{parent}}/{parent.path}"
            within = [_parent(parent)]
            yield path, {"parameters": within, **_collection(resource, table, parent)}
            yield f"{path}/{{row}}", {"parameters": [*within, _ROW], **_item(resource, parent)}


# Schemas


def _ref(kind: str, name: str) -> Object:
    return {"$ref": f"#/components/{kind}/{name}"}


def _name(resource: Resource) -> str:
    return "".join(word.capitalize() for word in resource.name.split("-"))


def _schemas(resource: Resource, table: Table) -> Object:
    """What a row looks like, a page of them, a new one, and a change of one."""
    own = [column for column in table.column_list if column.name[0] != "_"]
    row: Object = {column.name: _shared(json_schema(column)) for column in own}
    row |= {"_uuid": _UUID, "_version": _UUID, **FIELD_SCHEMAS.get(resource.name, {})}
    name = _name(resource)
    made: Object = {
        name: {"type": "object", "title": resource.singular, "properties": row},
        f"PageOf{name}": _page(name, f"page of {resource.name}"),
    }
    if resource.is_read_only:
        return made
    required = [table.column_list[place].name for place in table.invalid_defaults]
    new = _closed(f"new {resource.singular}", {c.name: _new(c, resource) for c in own})
    made[f"New{name}"] = new | ({"required": required} if required else {})
    changes = {c.name: _change(c, resource) for c in own if c.mutable}
    made[f"ChangeOf{name}"] = _closed(f"change of {resource.singular}", changes)
    return made


def _page(name: str, title: str) -> Object:
    properties = {
        "items": {"type": "array", "items": _ref("schemas", name)},
        "next": {"type": ["string", "null"], "description": "The `cursor` of the next page."},
        "count": {"type": "integer"},
    }
    required = ["items", "next"]
    return {"type": "object", "title": title, "required": required, "properties": properties}


def _closed(title: str, properties: Object) -> Object:
    return {
        "type": "object",
        "title": title,
        "properties": properties,
        "additionalProperties": False,
    }


def _shared(schema: Object) -> Object:
    """A reference to what is the same, where many columns have it: one type for those who read."""
    for name, same in _SHARED.items():
        if {**schema, "title": same["title"]} == same:
            return _ref("schemas", name)
    return schema


def _new(column: Column, resource: Resource) -> Object:
    return _shared(_new_value(column, resource))


def _new_value(column: Column, resource: Resource) -> Object:
    schema = json_schema(column)
    child = BY_TABLE.get((resource.database, column.type.key.ref_table or ""))
    if child is not None and child.parents and schema.get("type") == "array":
        ref = {"$ref": f"#/components/schemas/New{_name(child)}"}
        return {**schema, "items": {"anyOf": [schema["items"], ref]}}
    return schema


def _change(column: Column, resource: Resource) -> Object:
    """As RFC 7396 has it, and a set element by element."""
    schema = _new_value(column, resource)
    if column.type.value is not None:
        value = {"anyOf": [atom_schema(column.type.value), {"type": "null"}]}
        return _shared({**schema, "additionalProperties": value})
    if schema.get("type") == "array":
        # What the elements are is said by the array itself.
        items = {key: each for key, each in schema["items"].items() if key != "description"}
        members = _elements(f"change of {column.name}", items)
        return {"anyOf": [schema, _shared(members)]}
    return schema


def _elements(title: str, items: Object) -> Object:
    some = {"type": "array", "items": items}
    return _closed(title, {"add": some, "remove": some})


_TEXT_OR_NONE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_SHARED: Object = {
    "Texts": {"type": "object", "title": "texts", "additionalProperties": {"type": "string"}},
    "ChangeOfTexts": {
        "type": "object",
        "title": "change of texts",
        "additionalProperties": _TEXT_OR_NONE,
    },
    "ChangeOfElements": _elements("change of elements", {"type": "string"}),
    "Wait": {"type": "string", "title": "wait", "enum": ["none", *LEVELS]},
    "PageOfRows": _page("Row", "page of rows"),
}


# Operations


_SHOWN: Object = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of a login, an API key, or a token of the provider's.",
    },
    "basic": {"type": "http", "scheme": "basic"},
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}
_PUBLIC = ("/health/", f"{PREFIX}/login")


def _describe_who(made: Object) -> None:
    """Say how those who ask show who they are, and where they need not."""
    made["components"]["securitySchemes"] = _SHOWN
    made["security"] = [{name: []} for name in _SHOWN]
    for path, item in made["paths"].items():
        if path.startswith(_PUBLIC):
            for operation in item.values():
                operation["security"] = []


_FRAMEWORKS_PROBLEMS = ("HTTPValidationError", "ValidationError")


def _answer_problems(operation: Object) -> None:
    """Describe what goes wrong as ours, in place of what the framework has for it."""
    answers = operation["responses"]
    answers.pop("422", None)
    answers |= {kind: _ref("responses", "Problem") for kind in ("4XX", "5XX")}


def _operation(
    resource: Resource,
    verb: str,
    words: str,
    *,
    parent: Parent | None = None,
    changes: bool = False,
    parameters: list[Object] | None = None,
    body: str = "",
    answers: Object,
) -> Object:
    within = "" if parent is None else f"_of_{parent.resource}"
    operation: Object = {
        "operationId": f"{verb}_{resource.name}{within}".replace("-", "_"),
        "summary": words,
        "tags": [resource.name],
        "x-role": _role(resource.name, changes),
        "parameters": parameters or [],
        "responses": {**answers},
    }
    _answer_problems(operation)
    if body:
        schema = {"schema": _ref("schemas", body)}
        operation["requestBody"] = {"required": True, "content": {writing.JSON: schema}}
    return operation


def _role(thing: str, changes: bool) -> str:
    """The least role that may do it."""
    area = AREAS.get(thing, NETWORK)
    return str(area.write if changes else area.read)


def _answer(words: str, schema: Object | None = None, **headers: Object) -> Object:
    answer: Object = {"description": words}
    if headers:
        answer["headers"] = {name.replace("_", "-"): header for name, header in headers.items()}
    if schema is not None:
        answer["content"] = {writing.JSON: {"schema": schema}}
    return answer


_TEXT = {"schema": {"type": "string"}}


def _collection(
    resource: Resource, table: Table, parent: Parent | None = None, makes: bool = True
) -> Object:
    row = _ref("schemas", _name(resource))
    page = _ref("schemas", f"PageOf{_name(resource)}")
    where = "" if parent is None else f" of a {BY_NAME[parent.resource].singular}"
    shared = [_ref("parameters", name) for name in _LIST_PARAMETERS]
    listing = _operation(
        resource,
        "list",
        f"List {resource.name}{where}",
        parent=parent,
        parameters=[*shared, *_filters(resource, table)],
        answers={"200": _answer("A page of rows.", page, Link=_TEXT, OVN_Age=_TEXT)},
    )
    if not makes:
        return {"get": listing}
    creation = _operation(
        resource,
        "create",
        f"Create a {resource.singular}{where}",
        parent=parent,
        changes=True,
        parameters=[_ref("parameters", name) for name in _WRITE_PARAMETERS],
        body=f"New{_name(resource)}",
        answers={
            "201": _answer("The new row.", row, ETag=_TEXT, Location=_TEXT),
            "202": _answer("The new row, which `wait` did not see arrive in time.", row),
        },
    )
    return {"get": listing, "post": creation}


def _item(resource: Resource, parent: Parent | None = None) -> Object:
    row = _ref("schemas", _name(resource))
    item = {"get": _reading(resource, row, parent)}
    if resource.is_read_only:
        return item
    parameters = [_ref("parameters", name) for name in ("If-Match", *_WRITE_PARAMETERS)]
    late = "Done, and not seen in time by those to `wait` for."
    item["patch"] = _operation(
        resource,
        "change",
        f"Change a {resource.singular}",
        parent=parent,
        changes=True,
        parameters=parameters,
        body=f"ChangeOf{_name(resource)}",
        answers={
            "200": _answer("The row as it is now.", row, ETag=_TEXT),
            "202": _answer(late, row),
        },
    )
    item["delete"] = _operation(
        resource,
        "delete",
        f"Delete a {resource.singular}",
        parent=parent,
        changes=True,
        parameters=parameters,
        answers={"204": _answer("It is gone."), "202": _answer(late)},
    )
    return item


def _reading(resource: Resource, row: Object, parent: Parent | None) -> Object:
    parameters = [_ref("parameters", "fields")]
    answers = {"200": _answer("The row.", row, OVN_Age=_TEXT)}
    if resource.name not in FIELDS:
        parameters.append(_ref("parameters", "If-None-Match"))
        answers["200"]["headers"]["ETag"] = _TEXT
        answers["304"] = _answer("It has the entity tag that was given.")
    summary = f"Read a {resource.singular}"
    return _operation(
        resource, "read", summary, parent=parent, parameters=parameters, answers=answers
    )


def _filters(resource: Resource, table: Table) -> Iterator[Object]:
    for column in table.column_list:
        if column.index != VERSION and (resource.name, column.name) not in FILTERS:
            yield _filter(column)
    for owner, name in FILTERS:
        if owner == resource.name:
            yield _query(name, {"type": "string"}, f"Only rows of that {name}.")


def _filter(column: Column) -> Object:
    if column.type.is_map:
        return _query(column.name, {"type": "string"}, "Only rows that have this key there.")
    words = "Only rows of which it holds this" if column.type.n_max > 1 else "Only rows of this"
    schema = atom_schema(column.type.key)
    if "enum" in schema:
        schema = {"enum": schema["enum"], "type": schema["type"]}
    return _query(column.name, schema, f"{words} {column.name}.")


# What all have in common


def _query(name: str, schema: Mapping[str, Any], words: str) -> Object:
    return {"name": name, "in": "query", "schema": schema, "description": words}


def _header(name: str, words: str) -> Object:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": words}


def _path(name: str, words: str) -> Object:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
        "description": words,
    }


_ROW = _path("row", "The row: its uuid or its name.")


def _parent(parent: Parent) -> Object:
    return _path("parent", f"The {BY_NAME[parent.resource].singular}: its uuid or its name.")


_OPERATORS = ", ".join(f"`.{operator}`" for operator in filters.OPERATORS)
_PARAMETERS: Object = {
    "limit": _query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": reading.MOST_LIMIT, "default": 100},
        "How many rows a page has at most.",
    ),
    "cursor": _query("cursor", {"type": "string"}, "Where to go on: `next` of the last page."),
    "sort": _query(
        "sort",
        {"type": "string"},
        "Columns to sort by, with commas; from the greatest on after a minus.",
    ),
    "fields": _query("fields", {"type": "string"}, "The columns to show, with commas."),
    "count": _query("count", {"type": "boolean"}, "Whether to count all rows that are asked for."),
    "q": _query(
        "q",
        {"type": "string"},
        "Only rows with this text somewhere. Every column filters by its name, a map by"
        f" `column.key` too; after it stands what else is to be compared: {_OPERATORS}.",
    ),
    "wait": _query(
        "wait",
        _ref("schemas", "Wait"),
        "Answer when the Southbound has the change, or all hypervisors have; `none` unless told.",
    ),
    "timeout": _query(
        "timeout",
        {"type": "number", "minimum": 0, "maximum": writing.MOST_WAIT_SECONDS, "default": 30},
        "For how many seconds to wait at most.",
    ),
    "If-Match": _header(
        "If-Match", "The entity tag that the row has to have, or several, with commas; `*` is any."
    ),
    "If-None-Match": _header("If-None-Match", "The entity tags of what is known."),
    "Idempotency-Key": _header(
        "Idempotency-Key", "What tells a request that is made again from another one."
    ),
}
_LIST_PARAMETERS = ("limit", "cursor", "sort", "fields", "count", "q")
_WRITE_PARAMETERS = ("wait", "timeout", "Idempotency-Key")
_PROBLEM = {
    "description": "What is wrong.",
    "content": {
        problem.MEDIA_TYPE: {"schema": _ref("schemas", ProblemDetails.__name__)},
    },
}


def _raw_paths() -> Object:
    """Tables as they are."""
    where = [
        {**_path("database", "The Northbound or the Southbound."),
         "schema": {"type": "string", "enum": list(DATABASES)}},
        _path("table", "A table of its schema."),
    ]  # fmt: skip
    row, page = _ref("schemas", "Row"), _ref("schemas", "PageOfRows")
    lists = [_ref("parameters", name) for name in _LIST_PARAMETERS]
    writes = [_ref("parameters", name) for name in _WRITE_PARAMETERS]
    one = [_ref("parameters", name) for name in ("fields", "If-None-Match")]
    changes = [_ref("parameters", "If-Match"), *writes]
    done = {"200": _answer("The row.", row), "202": _answer("Done, and not seen in time.", row)}
    new = {"201": _answer("The new row.", row), "202": done["202"]}
    gone = {"204": _answer("It is gone."), "202": _answer("Done, and not seen in time.")}
    path = f"{PREFIX}/{location.RAW}/{{database}}/{{table}}"
    return {
        path: {
            "parameters": where,
            "get": _raw("list", "List rows of any table", lists, {"200": _answer("A page.", page)}),
            "post": _raw("create", "Create a row of any table", writes, new, has_body=True),
        },
        f"{path}/{{row}}": {
            "parameters": [*where, _ROW],
            "get": _raw(
                "read", "Read a row", one, {"200": done["200"], "304": _answer("As it was.")}
            ),
            "patch": _raw("change", "Change a row", changes, done, has_body=True),
            "delete": _raw("delete", "Delete a row", changes, gone),
        },
    }


def _raw(
    verb: str, words: str, parameters: list[Object], answers: Object, has_body: bool = False
) -> Object:
    changes = verb not in ("list", "read")
    wrong = _ref("responses", "Problem")
    operation: Object = {
        "operationId": f"{verb}_row",
        "summary": words,
        "tags": ["tables"],
        "x-role": _role(location.RAW, changes),
        "parameters": parameters,
        "responses": {**answers, "4XX": wrong, "5XX": wrong},
    }
    if has_body:
        content = {writing.JSON: {"schema": _ref("schemas", "Row")}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
